//! Rung 2 1/2: one INSERT ... SELECT FROM unnest a batch, with one array a column.
//!
//! A column whose values all have a binary form goes as an array of its own type, and leaves its
//! modifier to the assignment, as any INSERT does. Any other goes as an array of text, which the
//! server casts by the type's input function; where it would not, or would not tell it the
//! column's modifier, as an array of JSON objects (see `parameters`).

use std::error::Error;
use std::num::TryFromIntError;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Client;
use tokio_postgres::types::{IsNull, ToSql, Type};

use super::bring::bring;
use super::parameters::push_json;
use super::prepared::Prepared;
use super::{RowSlice, Strategy, WriteError};
use crate::encode::Encoder;
use crate::outcome::Tally;
use crate::target::{Column, Target, Upsert};

/// One INSERT a slice, from one array a column.
pub struct Unnest {
    target: Arc<Target>,
    /// By which columns go as text.
    prepared: Prepared,
    columns: Vec<Array>,
    /// What became of the rows of the latest write, if they were merged.
    merged: Tally,
}

impl Unnest {
    pub(super) fn new(target: Arc<Target>) -> Self {
        let columns = target.columns.iter().map(Array::new).collect();
        Unnest {
            target,
            prepared: Prepared::default(),
            columns,
            merged: Tally::default(),
        }
    }

    /// Takes all rows; a column that meets a value without a binary form is taken again as text.
    /// Returns the number of rows and the first one's record.
    fn fill(&mut self, rows: &mut RowSlice<'_>) -> (usize, Option<usize>) {
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
        (count, first)
    }

    async fn write_rows(
        &mut self,
        client: &Client,
        mut rows: RowSlice<'_>,
    ) -> Result<Tally, WriteError> {
        let (count, first) = self.fill(&mut rows);
        let Some(first) = first else {
            return Ok(Tally::default());
        };
        let shape: Vec<bool> = self.columns.iter().map(|column| column.as_text).collect();
        let sql = || sql(&self.target, &self.columns);
        let statement = self.prepared.of(client, &shape, sql).await?;
        let tally = bring(
            client,
            &statement,
            &self.columns,
            &self.target,
            (count, true),
        )
        .await
        .map_err(|error| WriteError {
            error,
            record: (count == 1).then_some(first),
            before_rows: false,
        })?;
        Ok(tally)
    }
}

impl Strategy for Unnest {
    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        async move {
            let tally = self.write_rows(client, rows).await?;
            if self.target.upsert.is_some() {
                self.merged = tally;
            }
            Ok(tally.total())
        }
        .boxed()
    }

    fn take_merged(&mut self) -> Tally {
        std::mem::take(&mut self.merged)
    }
}

/// The statement for columns that go as these do.
fn sql(target: &Target, columns: &[Array]) -> String {
    let list = |item: &dyn Fn(usize, &Column, Form) -> String| {
        let items = columns.iter().zip(&target.columns).zip(1..);
        items
            .map(|((array, column), number)| item(number, column, array.form()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let values = list(&|number, column, form| match form {
        Form::Own => format!("c{number}"),
        Form::Text => format!("c{number}::{}", column.base_type_name),
        Form::Json => column.read_from(&format!("c{number}")),
    });
    let arrays = list(&|number, column, form| match form {
        Form::Own => format!("${number}::{}[]", column.base_type_name),
        Form::Text => format!("${number}::text[]"),
        Form::Json => format!("${number}::json[]"),
    });
    let names = list(&|number, _, _| format!("c{number}"));
    let Some(upsert) = &target.upsert else {
        return format!(
            "{} SELECT {values} FROM unnest({arrays}) AS u ({names})",
            target.insert_into()
        );
    };
    let rows =
        format!("SELECT {values}, o FROM unnest({arrays}) WITH ORDINALITY AS u ({names}, o)");
    let [before, behind] = &upsert.many;
    format!("{before}{}{behind}", Upsert::relation(&rows, target, true))
}

/// What the elements of an array are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Values of the column's type.
    Own,
    /// Text to be cast.
    Text,
    /// JSON objects to be read.
    Json,
}

/// One column as a one-dimensional array in the form that array_recv reads.
#[derive(Debug)]
struct Array {
    /// Of the column's type; `None`: always text. An array of arrays would be unnested whole.
    encoder: Option<Encoder>,
    element_type: u32,
    /// What the texts go as: text or JSON.
    text_form: Form,
    as_text: bool,
    elements: Vec<u8>,
    /// The texts of the binary elements, so that the column can become text in the middle.
    texts: Vec<u8>,
    count: i32,
    nulls: bool,
}

impl Array {
    fn new(column: &Column) -> Self {
        let encoder = column
            .encoder()
            .filter(|_| !column.is_array && column.array_type != 0);
        Array {
            encoder,
            element_type: column.base_type,
            text_form: match column.is_modified || column.has_text_cast {
                true => Form::Json,
                false => Form::Text,
            },
            as_text: encoder.is_none(),
            elements: Vec::new(),
            texts: Vec::new(),
            count: 0,
            nulls: false,
        }
    }

    fn form(&self) -> Form {
        match self.as_text {
            true => self.text_form,
            false => Form::Own,
        }
    }

    fn clear(&mut self) {
        self.as_text = self.encoder.is_none();
        self.elements.clear();
        self.texts.clear();
        self.count = 0;
        self.nulls = false;
    }

    fn push(&mut self, field: Option<&[u8]>) {
        self.count += 1;
        let Some(text) = field else {
            self.nulls = true;
            self.elements.extend_from_slice(&(-1i32).to_be_bytes());
            if !self.as_text {
                self.texts.extend_from_slice(&(-1i32).to_be_bytes());
            }
            return;
        };
        if let Some(encoder) = self.encoder.filter(|_| !self.as_text) {
            if encoder.encode_with_length(text, &mut self.elements) {
                push_text(text, &mut self.texts);
                return;
            }
            self.as_text = true;
            std::mem::swap(&mut self.elements, &mut self.texts);
        }
        push_text(text, &mut self.elements);
    }
}

fn push_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as i32).to_be_bytes());
    out.extend_from_slice(text);
}

/// Appends the texts, each with its length in front, as JSON objects with theirs.
fn push_objects(mut texts: &[u8], out: &mut BytesMut) -> Result<(), TryFromIntError> {
    let mut object = Vec::new();
    while let Some((length, rest)) = texts.split_first_chunk() {
        let length = i32::from_be_bytes(*length);
        let Ok(size) = usize::try_from(length) else {
            out.put_i32(length);
            texts = rest;
            continue;
        };
        let (text, rest) = rest.split_at(size);
        object.clear();
        push_json(text, &mut object);
        out.put_i32(i32::try_from(object.len())?);
        out.extend_from_slice(&object);
        texts = rest;
    }
    Ok(())
}

impl ToSql for Array {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        // Dimensions, flags, element type; then of the one dimension its length and lower bound.
        out.put_i32(1);
        out.put_i32(i32::from(self.nulls));
        out.put_u32(match self.form() {
            Form::Own => self.element_type,
            Form::Text => Type::TEXT.oid(),
            Form::Json => Type::JSON.oid(),
        });
        out.put_i32(self.count);
        out.put_i32(1);
        match self.form() {
            Form::Own | Form::Text => out.extend_from_slice(&self.elements),
            Form::Json => push_objects(&self.elements, out)?,
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}
