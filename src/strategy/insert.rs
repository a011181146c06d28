//! Rung 1: one prepared INSERT a row, each answer awaited.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::{Client, Statement};

use super::parameters::Parameters;
use super::{RowSlice, Strategy, WriteError};
use crate::table::Target;

/// One prepared INSERT a row.
pub struct Insert {
    target: Arc<Target>,
    statement: Option<Statement>,
    parameters: Parameters,
}

impl Insert {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Insert {
            parameters: Parameters::new(&target),
            target,
            statement: None,
        }
    }

    async fn write_rows(&mut self, client: &Client, rows: RowSlice<'_>) -> Result<u64, WriteError> {
        let statement = prepared(&mut self.statement, client, &self.target).await?;
        self.parameters.fill(rows);
        let mut count = 0;
        for row in 0..self.parameters.rows() {
            count += client
                .execute_raw(statement, self.parameters.of(row..row + 1))
                .await
                .map_err(|error| WriteError {
                    error,
                    record: Some(self.parameters.record(row)),
                })?;
        }
        Ok(count)
    }
}

impl Strategy for Insert {
    fn name(&self) -> &'static str {
        "insert"
    }

    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        self.write_rows(client, rows).boxed()
    }
}

/// The statement that inserts one row, prepared at its first use.
pub(super) async fn prepared<'a>(
    statement: &'a mut Option<Statement>,
    client: &Client,
    target: &Target,
) -> Result<&'a Statement, tokio_postgres::Error> {
    if statement.is_none() {
        let sql = format!(
            "{} VALUES {}",
            target.insert_into(),
            values(1, target.columns.len())
        );
        *statement = Some(client.prepare(&sql).await?);
    }
    Ok(statement.as_ref().expect("set just above"))
}

/// `($1, $2), ($3, $4)`: parameters of `rows` rows of `columns` columns.
pub(super) fn values(rows: usize, columns: usize) -> String {
    let mut sql = String::with_capacity(rows * columns * 7);
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns {
            if column > 0 {
                sql.push_str(", ");
            }
            sql.push('$');
            sql.push_str(&(row * columns + column + 1).to_string());
        }
        sql.push(')');
    }
    sql
}

#[cfg(test)]
mod tests {
    #[test]
    fn parameters_are_numbered_row_after_row() {
        assert_eq!(super::values(2, 2), "($1, $2), ($3, $4)");
    }
}
