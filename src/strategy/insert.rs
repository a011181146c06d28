//! Rungs 1 and 1 1/2: one prepared INSERT a row, each answer awaited or many under way.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio_postgres::Client;

use super::bring::bring;
use super::parameters::{self, Parameters};
use super::prepared::Prepared;
use super::{RowSlice, Strategy, WriteError};
use crate::outcome::Tally;
use crate::target::Target;

/// Statements of `pipeline` that are under way at most. The client's request queue has no bound of
/// its own; 256 rows cover any round trip a database is worth loading over.
pub const PIPELINE_DEPTH: usize = 256;

/// One prepared INSERT a row.
pub struct Insert {
    target: Arc<Target>,
    /// Statements under way at most.
    depth: usize,
    prepared: Prepared,
    parameters: Parameters,
    /// What became of the rows of the latest write, if they were merged.
    merged: Tally,
}

impl Insert {
    pub(super) fn new(target: Arc<Target>, depth: usize) -> Self {
        Insert {
            parameters: Parameters::new(&target),
            target,
            depth,
            prepared: Prepared::default(),
            merged: Tally::default(),
        }
    }

    async fn write_rows(
        &mut self,
        client: &Client,
        rows: RowSlice<'_>,
    ) -> Result<Tally, WriteError> {
        let pulse = rows.pulse();
        self.parameters.fill(rows);
        let (parameters, target) = (&self.parameters, &self.target);
        let sql = || parameters::insert(target, parameters.as_json(), 1);
        let prepared = self.prepared.of(client, parameters.as_json(), sql);
        let statement = &prepared.await?;
        let insert = |row| {
            bring(
                client,
                statement,
                parameters.of(row..row + 1),
                target,
                (1, false),
            )
            .map(move |answer| {
                answer.map_err(|error| WriteError {
                    error,
                    record: Some(parameters.record(row)),
                    before_rows: false,
                })
            })
        };
        let mut tally = Tally::default();
        if self.depth == 1 {
            // A stream of one costs a row 9 microseconds of wake-ups (measured).
            for row in 0..parameters.rows() {
                tally += insert(row).await?;
                pulse.beat();
            }
            return Ok(tally);
        }
        // The stream starts and answers the statements in the order of the rows. After a failure
        // the rest fails too, in an aborted transaction; the first error is the true one.
        let mut answers = stream::iter(0..parameters.rows())
            .map(insert)
            .buffered(self.depth);
        while let Some(answer) = answers.next().await {
            tally += answer?;
            pulse.beat();
        }
        Ok(tally)
    }
}

impl Strategy for Insert {
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
