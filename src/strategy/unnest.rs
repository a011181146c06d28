//! Rung 2 1/2: one INSERT ... SELECT FROM unnest a batch, with one array a column.
//!
//! Each column goes as an array of text in binary form; the server casts every element to the
//! column's type without its modifiers, through the input function, and the assignment applies the
//! modifiers as for any INSERT.

use std::error::Error;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::types::{IsNull, ToSql, Type};
use tokio_postgres::{Client, Statement};

use super::{RowSlice, Strategy, WriteError};
use crate::table::Target;

/// One INSERT a slice, from one array a column.
pub struct Unnest {
    target: Arc<Target>,
    statement: Option<Statement>,
    columns: Vec<TextArray>,
}

impl Unnest {
    pub(super) fn new(target: Arc<Target>) -> Self {
        let columns = target
            .columns
            .iter()
            .map(|_| TextArray::default())
            .collect();
        Unnest {
            target,
            statement: None,
            columns,
        }
    }

    fn sql(&self) -> String {
        let list = |item: &dyn Fn(usize) -> String| {
            (1..=self.columns.len())
                .map(item)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let casts = list(&|n| format!("c{n}::{}", self.target.columns[n - 1].base_type_name));
        let arrays = list(&|n| format!("${n}::text[]"));
        let names = list(&|n| format!("c{n}"));
        format!(
            "{} SELECT {casts} FROM unnest({arrays}) AS u ({names})",
            self.target.insert_into()
        )
    }

    async fn write_rows(
        &mut self,
        client: &Client,
        mut rows: RowSlice<'_>,
    ) -> Result<u64, WriteError> {
        let statement = match &self.statement {
            Some(statement) => statement,
            None => {
                let statement = client.prepare(&self.sql()).await?;
                self.statement.insert(statement)
            }
        };
        for column in &mut self.columns {
            column.clear();
        }
        let mut first = None;
        let mut count = 0;
        while let Some(row) = rows.next_row() {
            first.get_or_insert(row.index);
            count += 1;
            for (column, field) in self.columns.iter_mut().zip(row.fields()) {
                column.push(field);
            }
        }
        let Some(first) = first else {
            return Ok(0);
        };
        client
            .execute_raw(statement, &self.columns)
            .await
            .map_err(|error| WriteError {
                error,
                record: (count == 1).then_some(first),
            })
    }
}

impl Strategy for Unnest {
    fn name(&self) -> &'static str {
        "unnest"
    }

    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        self.write_rows(client, rows).boxed()
    }
}

/// A one-dimensional text array in the form that array_recv reads.
#[derive(Debug, Default)]
struct TextArray {
    elements: BytesMut,
    count: i32,
    nulls: bool,
}

impl TextArray {
    fn clear(&mut self) {
        self.elements.clear();
        self.count = 0;
        self.nulls = false;
    }

    fn push(&mut self, field: Option<&[u8]>) {
        self.count += 1;
        match field {
            None => {
                self.nulls = true;
                self.elements.put_i32(-1);
            }
            Some(text) => {
                self.elements.put_i32(text.len() as i32);
                self.elements.extend_from_slice(text);
            }
        }
    }
}

impl ToSql for TextArray {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        // Dimensions, flags, element type; then of the one dimension its length and lower bound.
        out.put_i32(1);
        out.put_i32(i32::from(self.nulls));
        out.put_u32(Type::TEXT.oid());
        out.put_i32(self.count);
        out.put_i32(1);
        out.extend_from_slice(&self.elements);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT_ARRAY
    }

    tokio_postgres::types::to_sql_checked!();
}
