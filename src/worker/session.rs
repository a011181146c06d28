//! One connection with its strategy, every answer awaited for a limited time only.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::connect::{Lent, Pool};
use tokio_postgres::Client;

use crate::batch::Batch;
use crate::ledger::{self, Backend, Ledger, Statements};
use crate::outcome::Tally;
use crate::retry::Failure;
use crate::server_error::copy_column;
use crate::source::RowParser;
use crate::strategy::{Pulse, Refused, RowSlice, Strategy, StrategyFactory};
use crate::target::Target;

/// A connection taken from the pool and the strategy whose statements are prepared on it.
pub struct Session {
    client: Lent,
    strategy: Box<dyn Strategy>,
    answer_timeout: Duration,
    statements: Statements,
    /// A text COPY, whose errors name the column at fault; made when first needed.
    probe: Option<Box<dyn Strategy>>,
    /// The transaction that is open here.
    open: Option<Backend>,
}

impl Session {
    /// Takes a connection.
    pub async fn open(
        pool: &Pool,
        strategy: Box<dyn Strategy>,
        answer_timeout: Duration,
    ) -> Result<Self, Failure> {
        let client = pool
            .get()
            .await
            .map_err(|error| Failure::Connect(Box::new(error.into())))?;
        Ok(Session {
            client,
            strategy,
            answer_timeout,
            statements: Statements::default(),
            probe: None,
            open: None,
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The server process of this connection.
    pub async fn pid(&self) -> Result<i32, Failure> {
        let asked = self.client.query_one("SELECT pg_backend_pid() AS pid", &[]);
        Ok(self.answered(asked).await?.get("pid"))
    }

    /// Runs SQL without parameters.
    pub async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.answered(self.client.batch_execute(sql)).await
    }

    /// Waits for an answer as long as is allowed.
    pub async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        answered(self.answer_timeout, answer).await
    }

    /// Writes the rows of `range` that are not refused in the open transaction; returns how many
    /// were sent and how many the server stored. `in_order`: rows are stored one after the other.
    pub async fn write(
        &mut self,
        batch: &Batch,
        range: std::ops::Range<usize>,
        in_order: bool,
        parser: &mut RowParser,
        refused: &mut Refused,
    ) -> Result<Written, Failure> {
        let pulse = Pulse::default();
        let rows = RowSlice::new(batch, range.clone(), parser, refused)
            .one_after_the_other(in_order)
            .watched(pulse.clone());
        let mut write = self.strategy.write(&self.client, rows);
        let result = loop {
            let beats = pulse.beats();
            match tokio::time::timeout(self.answer_timeout, &mut write).await {
                Ok(result) => break result,
                // The limit is for one answer, not for all of a batch.
                Err(_) if pulse.beats() > beats => {}
                Err(_) => return Err(Failure::Timeout(self.answer_timeout)),
            }
        };
        drop(write);
        let stored = result.map_err(Failure::from)?;
        let sent = (range.len() - refused.within(range)) as u64;
        Ok(Written { sent, stored })
    }

    /// Asks which column of a row that fails alone is at fault: the error of an INSERT does not
    /// tell, that of a COPY does. The transaction is as before afterwards.
    ///
    /// # Errors
    /// A failure that is not about the row.
    pub async fn column_at_fault(
        &mut self,
        target: &Arc<Target>,
        batch: &Batch,
        index: usize,
        parser: &mut RowParser,
    ) -> Result<Option<String>, Failure> {
        self.execute("SAVEPOINT pgrung_probe").await?;
        let probe = self
            .probe
            .get_or_insert_with(|| StrategyFactory::text_copy(target));
        let mut refused = Refused::default();
        let rows = RowSlice::new(batch, index..index + 1, parser, &mut refused);
        let written = match tokio::time::timeout(
            self.answer_timeout,
            probe.write(&self.client, rows),
        )
        .await
        {
            Ok(written) => written,
            Err(_) => return Err(Failure::Timeout(self.answer_timeout)),
        };
        let column = match written {
            Ok(_) => None,
            Err(error) => {
                let column = error
                    .error
                    .as_db_error()
                    .and_then(|server| copy_column(server, &target.table));
                let failure = Failure::Server {
                    before_rows: error.before_rows,
                    error: error.error,
                    record: None,
                };
                if !failure.keeps_connection() {
                    return Err(failure);
                }
                column
            }
        };
        self.execute("ROLLBACK TO pgrung_probe; RELEASE pgrung_probe")
            .await?;
        Ok(column)
    }

    /// Whether the target takes the statement when it brings no row. The transaction is as before
    /// afterwards.
    ///
    /// # Errors
    /// A failure that is not the server's refusal.
    pub async fn takes_no_rows(&self, target: &Target) -> Result<bool, Failure> {
        self.execute("SAVEPOINT pgrung_probe").await?;
        let asked = self.execute(&target.insert_nothing()).await;
        self.execute("ROLLBACK TO pgrung_probe; RELEASE pgrung_probe")
            .await?;
        Ok(asked.is_ok())
    }

    /// What the strategy has to say about its latest write, once.
    pub fn take_note(&mut self) -> Option<String> {
        self.strategy.take_note()
    }

    /// Begins a transaction with the SQL `begin`.
    pub async fn begin(&mut self, begin: &str) -> Result<(), Failure> {
        self.open = self.answered(Backend::begin(&self.client, begin)).await?;
        Ok(())
    }

    /// Claims the batch's span in the open transaction.
    pub async fn claim(
        &mut self,
        ledger: &Ledger,
        batch: &Batch,
    ) -> Result<ledger::Claim, Failure> {
        let claim = ledger.claim(&self.client, &mut self.statements, batch);
        answered(self.answer_timeout, claim).await
    }

    /// Notes in the ledger what became of the batch, and proves where its rows are.
    pub async fn settle(
        &mut self,
        ledger: &Ledger,
        batch: &Batch,
        tally: Tally,
    ) -> Result<ledger::Settled, Failure> {
        let settle = ledger.settle(&self.client, &mut self.statements, batch, tally);
        answered(self.answer_timeout, settle).await
    }

    /// The transaction has ended for certain.
    pub fn settled(&mut self) {
        self.open = None;
    }

    /// Closes the connection instead of giving it back: something is left on it that a rollback
    /// does not clear. Returns the transaction that the server may still have open.
    pub fn discard(self) -> Option<Backend> {
        drop(Lent::take(self.client));
        self.open
    }
}

/// Waits for an answer as long as is allowed.
async fn answered<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, answer).await {
        Ok(result) => result.map_err(|error| Failure::Server {
            error,
            record: None,
            before_rows: false,
        }),
        Err(_) => Err(Failure::Timeout(limit)),
    }
}

/// Rows of one write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
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
