//! Rung 2: prepared INSERT ... VALUES of many rows a statement.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::{Client, Statement};

use super::bring::bring;
use super::parameters::{self, Parameters};
use super::{RowSlice, Strategy, WriteError};
use crate::outcome::Tally;
use crate::target::Target;

/// Rows of one statement at most: beyond it the time to plan the statement eats the gain.
const MOST_ROWS: usize = 1_000;

/// Parameters of one statement at most: the Bind message counts them in 16 bits.
const MOST_PARAMETERS: usize = 65_535;

/// Rows, and which of their columns are JSON.
type Shape = (usize, Vec<bool>);

/// INSERT ... VALUES of many rows. Two statements are kept prepared: the full shape and the latest
/// tail shape.
pub struct MultiInsert {
    target: Arc<Target>,
    full: Option<(Shape, Statement)>,
    tail: Option<(Shape, Statement)>,
    parameters: Parameters,
    /// What became of the rows of the latest write, if they were merged.
    merged: Tally,
}

impl MultiInsert {
    pub(super) fn new(target: Arc<Target>) -> Self {
        MultiInsert {
            parameters: Parameters::new(&target),
            target,
            full: None,
            tail: None,
            merged: Tally::default(),
        }
    }

    fn most_rows(&self) -> usize {
        (MOST_PARAMETERS / self.target.columns.len().max(1)).clamp(1, MOST_ROWS)
    }

    async fn statement(
        &mut self,
        client: &Client,
        rows: usize,
    ) -> Result<Statement, tokio_postgres::Error> {
        let slot = if rows == self.most_rows() {
            &mut self.full
        } else {
            &mut self.tail
        };
        let as_json = self.parameters.as_json();
        if let Some(((of_rows, of_json), statement)) = slot
            && *of_rows == rows
            && of_json == as_json
        {
            return Ok(statement.clone());
        }
        let sql = parameters::insert(&self.target, as_json, rows);
        let statement = client.prepare(&sql).await?;
        *slot = Some(((rows, as_json.to_vec()), statement.clone()));
        Ok(statement)
    }

    async fn write_rows(
        &mut self,
        client: &Client,
        rows: RowSlice<'_>,
    ) -> Result<Tally, WriteError> {
        let pulse = rows.pulse();
        self.parameters.fill(rows);
        let most = self.most_rows();
        let mut tally = Tally::default();
        let mut from = 0;
        while from < self.parameters.rows() {
            let to = (from + most).min(self.parameters.rows());
            let statement = self.statement(client, to - from).await?;
            let parameters = self.parameters.of(from..to);
            tally += bring(
                client,
                &statement,
                parameters,
                &self.target,
                (to - from, to - from > 1),
            )
            .await
            .map_err(|error| WriteError {
                error,
                record: (to - from == 1).then(|| self.parameters.record(from)),
                before_rows: false,
            })?;
            pulse.beat();
            from = to;
        }
        Ok(tally)
    }
}

impl Strategy for MultiInsert {
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
