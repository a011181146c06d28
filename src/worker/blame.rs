//! Who is to blame for a refusal: the row that fails alone, or what would refuse any row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::session::Session;
use crate::batch::Batch;
use crate::retry::Failure;
use crate::server_error::copy_column;
use crate::source::RowParser;
use crate::strategy::Refusal;
use crate::target::Target;

/// How a row that fails alone is judged.
#[derive(Clone, Copy)]
pub struct Blame<'a> {
    pub target: &'a Arc<Target>,
    /// Whether COPY takes the table, so that it can be asked for a column's name.
    pub can_copy: bool,
    pub doubts: &'a Doubts,
}

impl Blame<'_> {
    /// What the row at `index`, which failed alone in the open transaction, is put aside with;
    /// `None` if it is not to blame. The transaction is as before afterwards.
    ///
    /// # Errors
    /// A failure that says nothing of the row.
    pub async fn refusal(
        &self,
        session: &mut Session,
        batch: &Batch,
        index: usize,
        parser: &mut RowParser,
        failure: &Failure,
    ) -> Result<Option<Refusal>, Failure> {
        let should_pass = !failure.may_be_a_row(false);
        let is_the_value = failure.names_a_value()
            || should_pass
                && self
                    .is_no_value(session, batch, index, parser, failure)
                    .await?;
        if !is_the_value {
            let doubtful = should_pass && self.doubts.are_too_many();
            // What fails with any row fails with none.
            if doubtful || !session.takes_no_rows(self.target).await? {
                return Ok(None);
            }
        }
        let mut refusal = failure.refusal();
        if let (None, Failure::Server { error, .. }) = (&refusal.column, failure) {
            let server = error.as_db_error();
            refusal.column = server.and_then(|server| copy_column(server, self.target.relation()));
        }
        if self.can_copy && refusal.column.is_none() && refusal.sqlstate.starts_with("22") {
            refusal.column = session
                .column_at_fault(self.target, batch, index, parser)
                .await?;
        }
        Ok(Some(refusal))
    }

    /// Whether the input function of a column refuses the row's value likewise, with no table and no
    /// trigger about.
    async fn is_no_value(
        &self,
        session: &Session,
        batch: &Batch,
        index: usize,
        parser: &mut RowParser,
        failure: &Failure,
    ) -> Result<bool, Failure> {
        let record = batch.record(index);
        if parser.parse(record).is_err() {
            return Ok(false);
        }
        let texts = parser.fields_of(record).map(|field| {
            let text = field.and_then(|field| std::str::from_utf8(field).ok());
            text.map(|text| json!({ "v": text }).to_string())
        });
        let texts: Vec<Option<String>> = texts.collect();
        let numbered = self.target.inputs().iter().enumerate();
        // An answer of which no type has to be looked up.
        let reads = numbered.map(|(at, column)| {
            let read = column.read_from(&format!("${}::json", at + 1));
            format!("{read} IS NULL")
        });
        let sql = format!("SELECT {}", reads.collect::<Vec<_>>().join(", "));
        let read = session.try_query(&sql, &texts).await?;
        Ok(read.is_err_and(|refused| refused.sqlstate() == failure.sqlstate()))
    }
}

/// Rows blamed for a fault that should have passed, since a row was last stored. A row is at fault
/// only while others get in: what a trigger reaches may refuse them all.
#[derive(Debug, Default)]
pub struct Doubts(AtomicU32);

impl Doubts {
    const MOST: u32 = 10;

    /// A row got in.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Counts one more.
    fn are_too_many(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) >= Self::MOST
    }
}
