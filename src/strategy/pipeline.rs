//! Rung 1 1/2: one prepared INSERT a row, sent without waiting for each answer.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio_postgres::{Client, Statement};

use super::insert::prepared;
use super::parameters::Parameters;
use super::{RowSlice, Strategy, WriteError};
use crate::table::Target;

/// Statements under way at most. The client's request queue has no bound of its own; 256 rows
/// cover any round trip a database is worth loading over.
const DEPTH: usize = 256;

/// One prepared INSERT a row, many under way.
pub struct Pipeline {
    target: Arc<Target>,
    statement: Option<Statement>,
    parameters: Parameters,
}

impl Pipeline {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Pipeline {
            parameters: Parameters::new(&target),
            target,
            statement: None,
        }
    }

    async fn write_rows(&mut self, client: &Client, rows: RowSlice<'_>) -> Result<u64, WriteError> {
        let statement = prepared(&mut self.statement, client, &self.target).await?;
        self.parameters.fill(rows);
        let parameters = &self.parameters;
        // The stream starts and answers the statements in the order of the rows. After a failure
        // the rest fails too, in an aborted transaction; the first error is the true one.
        let mut answers = stream::iter(0..parameters.rows())
            .map(|row| {
                client
                    .execute_raw(statement, parameters.of(row..row + 1))
                    .map(move |answer| {
                        answer.map_err(|error| WriteError {
                            error,
                            record: Some(parameters.record(row)),
                        })
                    })
            })
            .buffered(DEPTH);
        let mut count = 0;
        let mut first_error = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(rows) => count += rows,
                Err(error) => {
                    first_error = Some(error);
                    break;
                }
            }
        }
        match first_error {
            None => Ok(count),
            Some(error) => Err(error),
        }
    }
}

impl Strategy for Pipeline {
    fn name(&self) -> &'static str {
        "pipeline"
    }

    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        self.write_rows(client, rows).boxed()
    }
}
