//! One connection with its strategy, every answer awaited for a limited time only.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::batch::Batch;
use crate::connect::{Lent, Pool, process_of_login, skip_statement_names};
use crate::ledger::{self, Backend, Ledger, Statements};
use crate::merge::Merge;
use crate::outcome::Tally;
use crate::retry::Failure;
use crate::server_error::copy_column;
use crate::source::RowParser;
use crate::strategy::{Pulse, Refused, RowSlice, Strategy, StrategyFactory};
use crate::target::Target;

/// A connection taken from the pool and the strategy whose statements are prepared on it.
///
/// On a connection to the server itself they stay prepared. Behind a pooler the next transaction may
/// be on another server connection, on which the name of a statement means nothing, or another
/// program's: there all are made in the transaction that uses them, and removed before its end.
pub struct Session {
    client: Lent,
    factory: StrategyFactory,
    target: Arc<Target>,
    strategy: Box<dyn Strategy>,
    /// How each batch is merged, once it is written.
    merge: Option<Arc<Merge>>,
    /// The process that the login named.
    process: Option<i32>,
    /// Whether another process answers: a pooler's doing.
    pooled: bool,
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
        factory: &StrategyFactory,
        target: &Arc<Target>,
        answer_timeout: Duration,
    ) -> Result<Self, Failure> {
        let client = pool
            .get()
            .await
            .map_err(|error| Failure::Connect(Box::new(error.into())))?;
        let mut session = Session {
            process: process_of_login(&client),
            client,
            strategy: factory.build(target),
            factory: factory.clone(),
            target: target.clone(),
            merge: None,
            pooled: false,
            answer_timeout,
            statements: Statements::default(),
            probe: None,
            open: None,
        };
        session.look().await?;
        Ok(session)
    }

    /// The same, with batches that are merged.
    pub fn merging(self, merge: Option<Arc<Merge>>) -> Self {
        Session { merge, ..self }
    }

    /// The server process, which is the same for the whole session; `None` behind a pooler.
    pub fn process(&self) -> Option<i32> {
        self.process.filter(|_| !self.pooled)
    }

    /// Looks which process answers.
    pub async fn look(&mut self) -> Result<(), Failure> {
        // Not a statement with a name: it would be prepared in one transaction, used in another.
        let asked = self.client.simple_query("SELECT pg_backend_pid()");
        let answer = self.answered(asked).await?;
        let process = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        self.note(process).await;
        Ok(())
    }

    /// Notes which process answers.
    async fn note(&mut self, process: Option<i32>) {
        let pooled = process.is_none() || process != self.process;
        if pooled && !self.pooled {
            self.pooled = true;
            self.forget_statements();
            skip_statement_names(&self.client).await;
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
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
            .stamped(self.target.stamp)
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
        let merged = match &self.merge {
            Some(merge) if stored == sent => {
                let merging = merge.batch(&self.client, sent, in_order);
                let merged = tokio::time::timeout(self.answer_timeout, merging).await;
                merged.map_err(|_| Failure::Timeout(self.answer_timeout))??
            }
            _ => self.strategy.take_merged(),
        };
        Ok(Written {
            sent,
            stored,
            merged,
        })
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
        if let Some(clear) = target.clear() {
            self.execute(&clear.many).await?;
        }
        let probe = self
            .probe
            .get_or_insert_with(|| StrategyFactory::text_copy(target));
        let mut refused = Refused::default();
        let rows = RowSlice::new(batch, index..index + 1, parser, &mut refused);
        let rows = rows.stamped(target.stamp);
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
            Ok(_) => self.mapped_at_fault(target).await?,
            Err(error) => {
                let column = error
                    .error
                    .as_db_error()
                    .and_then(|server| copy_column(server, target.relation()));
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

    /// The first column whose expression fails on the row in the temporary table, if rows go there.
    async fn mapped_at_fault(&self, target: &Target) -> Result<Option<String>, Failure> {
        for (column, read) in target.landing.iter().flat_map(|landing| &landing.reads) {
            if self.try_query(read, &[]).await?.is_err() {
                return Ok(Some(column.clone()));
            }
        }
        Ok(None)
    }

    /// Whether the target takes the statement when it brings no row. The transaction is as before
    /// afterwards.
    ///
    /// # Errors
    /// A failure that may pass.
    pub async fn takes_no_rows(&self, target: &Target) -> Result<bool, Failure> {
        match self.try_query(&target.insert_nothing(), &[]).await? {
            Ok(()) => Ok(true),
            Err(failure) if failure.keeps_connection() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Asks a question whose answer may be a refusal. The transaction is as before afterwards.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_query(
        &self,
        sql: &str,
        texts: &[Option<String>],
    ) -> Result<Result<(), Failure>, Failure> {
        self.execute("SAVEPOINT pgrung_probe").await?;
        let texts: Vec<_> = texts
            .iter()
            .map(|text| (text as &(dyn ToSql + Sync), Type::TEXT))
            .collect();
        let answer = self.answered(self.client.query_typed(sql, &texts)).await;
        self.execute("ROLLBACK TO pgrung_probe; RELEASE pgrung_probe")
            .await?;
        Ok(answer.map(|_| ()))
    }

    /// What the strategy has to say about its latest write, once.
    pub fn take_note(&mut self) -> Option<String> {
        self.strategy.take_note()
    }

    /// Begins a transaction with the SQL `begin`.
    pub async fn begin(&mut self, begin: &str) -> Result<(), Failure> {
        let with_savepoint = self.pooled;
        let begin = match with_savepoint {
            true => format!("{begin}; {SAVEPOINT}"),
            false => begin.to_string(),
        };
        let begun = Backend::begin(&self.client, &begin);
        self.open = self.answered(begun).await?;
        self.note(self.open.map(Backend::pid)).await;
        if self.pooled && !with_savepoint {
            self.execute(SAVEPOINT).await?;
        }
        Ok(())
    }

    /// Commits the open transaction.
    ///
    /// # Errors
    /// A failure before COMMIT is sent, or of COMMIT itself.
    pub async fn commit(&mut self) -> Result<(), Uncommitted> {
        if self.pooled {
            self.forget_statements();
            let forgotten = self.execute(FORGET_STATEMENTS).await;
            forgotten.map_err(|failure| Uncommitted {
                failure,
                was_asked: false,
            })?;
        }
        let committed = self.execute("COMMIT").await;
        committed.map_err(|failure| Uncommitted {
            failure,
            was_asked: true,
        })?;
        self.open = None;
        Ok(())
    }

    /// Rolls the open transaction back.
    pub async fn rollback(&mut self) -> Result<(), Failure> {
        if self.pooled {
            self.forget_statements();
            // Statements outlive a transaction that is rolled back, and none is looked for in one
            // that has failed.
            self.execute("ROLLBACK TO pgrung_begin").await?;
            self.execute(FORGET_STATEMENTS).await?;
        }
        self.execute("ROLLBACK").await?;
        self.open = None;
        Ok(())
    }

    /// Removes the statements made in the open transaction.
    fn forget_statements(&mut self) {
        self.strategy = self.factory.build(&self.target);
        self.statements = Statements::default();
        self.probe = None;
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

    /// Closes the connection instead of giving it back: something is left on it that a rollback
    /// does not clear. Returns the transaction that the server may still have open.
    pub fn discard(self) -> Option<Backend> {
        drop(Lent::take(self.client));
        self.open
    }
}

/// Behind a pooler, where to roll back to before the statements are removed.
const SAVEPOINT: &str = "SAVEPOINT pgrung_begin";

/// Removes what the client library has prepared in this transaction and keeps to itself: the
/// statements that look up types. The names are the library's, so none is a pooler's own.
const FORGET_STATEMENTS: &str = "
DO $$
DECLARE statement text;
BEGIN
    FOR statement IN SELECT name FROM pg_prepared_statements
                     WHERE NOT from_sql AND name ~ '^s[0-9]+$' AND prepare_time >= now()
    LOOP
        EXECUTE format('DEALLOCATE %I', statement);
    END LOOP;
END $$";

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

/// A transaction that is not known to be committed.
pub struct Uncommitted {
    pub failure: Failure,
    /// Whether the server was asked to commit it; if not, it cannot have.
    pub was_asked: bool,
}

/// Rows of one write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub sent: u64,
    /// Rows that the server says it stored.
    pub stored: u64,
    /// What became of them, if they were merged then.
    pub merged: Tally,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.stored += other.stored;
        self.merged += other.merged;
    }
}
