//! One connection with its strategy, every answer awaited for a limited time only.

use std::future::Future;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio_postgres::Client;

use crate::batch::Batch;
use crate::retry::Failure;
use crate::source::RowParser;
use crate::strategy::{Refused, RowSlice, Strategy};

/// A connection taken from the pool and the strategy whose statements are prepared on it.
pub struct Session {
    client: Object,
    strategy: Box<dyn Strategy>,
    answer_timeout: Duration,
}

impl Session {
    /// Takes a connection.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn open(
        pool: &Pool,
        strategy: Box<dyn Strategy>,
        answer_timeout: Duration,
    ) -> Result<Self, Failure> {
        let client = pool
            .get()
            .await
            .map_err(|error| Failure::Connect(error.into()))?;
        Ok(Session {
            client,
            strategy,
            answer_timeout,
        })
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs SQL without parameters.
    ///
    /// # Errors
    /// What the server says, or its silence.
    pub async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.answered(self.client.batch_execute(sql)).await
    }

    /// Waits for an answer as long as is allowed.
    ///
    /// # Errors
    /// What the server says, or its silence.
    pub async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.answer_timeout, answer).await {
            Ok(result) => result.map_err(|error| Failure::Server {
                error,
                record: None,
            }),
            Err(_) => Err(Failure::Timeout(self.answer_timeout)),
        }
    }

    /// Writes the rows of `range` that are not refused in the open transaction; returns how many
    /// were sent and how many the server stored.
    ///
    /// # Errors
    /// What the server says, or its silence.
    pub async fn write(
        &mut self,
        batch: &Batch,
        range: std::ops::Range<usize>,
        parser: &mut RowParser,
        refused: &mut Refused,
    ) -> Result<Written, Failure> {
        let rows = RowSlice::new(batch, range.clone(), parser, refused);
        let write = self.strategy.write(&self.client, rows);
        let stored = match tokio::time::timeout(self.answer_timeout, write).await {
            Ok(result) => result.map_err(|error| Failure::Server {
                error: error.error,
                record: error.record,
            })?,
            Err(_) => return Err(Failure::Timeout(self.answer_timeout)),
        };
        let sent = (range.len() - refused.within(range)) as u64;
        Ok(Written { sent, stored })
    }

    /// Closes the connection instead of giving it back: something is left on it that a rollback
    /// does not clear.
    pub fn discard(self) {
        drop(Object::take(self.client));
    }
}

/// Rows of one write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows sent.
    pub sent: u64,
    /// Rows that the server says it stored.
    pub stored: u64,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.stored += other.stored;
    }
}
