//! The prepared statements of a connection, by which columns are read by input functions.

use std::collections::HashMap;

use tokio_postgres::{Client, Error, Statement};

/// Statements kept; each batch may have its own shape.
const MOST: usize = 16;

/// One statement a shape.
#[derive(Default)]
pub struct Prepared(HashMap<Vec<bool>, Statement>);

impl Prepared {
    /// The statement of `shape`; `sql` is asked where it has to be prepared.
    pub async fn of(
        &mut self,
        client: &Client,
        shape: &[bool],
        sql: impl FnOnce() -> String,
    ) -> Result<Statement, Error> {
        if let Some(statement) = self.0.get(shape) {
            return Ok(statement.clone());
        }
        let statement = client.prepare(&sql()).await?;
        if self.0.len() == MOST {
            self.0.clear();
        }
        self.0.insert(shape.to_vec(), statement.clone());
        Ok(statement)
    }
}
