//! A merge of one batch, whose rows stand in a temporary table of its transaction.

use tokio_postgres::Client;

use super::Merge;
use super::error::MergeError;
use super::part::Part;
use super::sql::Sql;
use super::writer::{Others, Writer};
use crate::outcome::{Outcome, Tally};
use crate::retry::Failure;

impl Merge {
    /// SQL for the transaction of a batch: its rows are few beside those of the table, which are found
    /// by their keys and not read through each time.
    pub const BATCHWISE: &str = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

    /// Merges the `rows` that the batch has brought; what became of each. `alone`: they have failed
    /// together, and are tried in pieces.
    ///
    /// # Errors
    /// What the server says.
    pub async fn batch(&self, client: &Client, rows: u64, alone: bool) -> Result<Tally, Failure> {
        let sql = Sql::new(self, Part::default());
        let writer = Writer {
            merge: self,
            client,
        };
        let merging = async {
            let losers = match rows {
                0 | 1 => 0,
                _ => writer.execute(&sql.drop_losers()).await?,
            };
            let others = match alone {
                true => Others::There,
                false => Others::None,
            };
            let merged = writer.write(&sql, rows - losers, others).await?;
            Ok(merged.tally.and(Outcome::Superseded, losers))
        };
        merging.await.map_err(|error| match error {
            MergeError::Failed(failure) => failure,
            MergeError::Count { staged, done, .. } => Failure::Count {
                sent: staged,
                stored: done,
            },
            // None of the others comes of a write.
            _ => Failure::Vanished,
        })
    }
}
