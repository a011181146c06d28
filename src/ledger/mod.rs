//! The ledger: which byte ranges of which sources are committed, written in the transaction of the
//! data, so that a batch is loaded exactly once whatever dies.

mod choice;
mod compact;
mod error;
mod finish;
mod forget;
mod home;
mod known;
mod lease;
mod locks;
mod merging;
mod migrate;
mod open;
mod prune;
mod rejects;
mod replay;
mod request;
mod resume;
mod staging;
mod standing;
mod status;
mod user_sql;

use tokio_postgres::types::{Oid, ToSql};
use tokio_postgres::{Client, IsolationLevel, Row, SimpleQueryMessage, Statement, Transaction};

use crate::batch::Batch;
use crate::outcome::{Outcome, Tally};
use crate::source::checksum;
use crate::span::Span;
use crate::target::Place;

pub use error::LedgerError;
pub use finish::{Finish, WAIT_FOR_THE_DISK};
pub use lease::{Lease, RENEW_EVERY};
pub use merging::PartState;
pub use migrate::{migrate, require};
pub use open::open;
pub use prune::{Pruned, prune};
pub use rejects::OpenRejects;
pub use replay::KnownImport;
pub use request::{Request, SourceIdentity};
pub use resume::resume;
pub use staging::{StagingRequest, forget_finished, staging};
pub use standing::{Remembered, Standing};
pub use status::{ImportStatus, StatusFilter, status};
pub use user_sql::run_sql;

/// One run of one import: what its workers write into the ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The import that names this run: that of its new sources.
    pub import_id: String,
    /// The sources of this run, in its order.
    pub sources: Vec<LedgerSource>,
    /// The table that the import was opened on.
    pub table: Place,
    /// Whether the target, and with it spans and rejects, vanish in a server crash.
    pub unlogged: bool,
}

/// A source as the ledger names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSource {
    pub import_id: String,
    /// Its number in the import.
    pub number: i32,
    /// The number of the run that loads it; a newer run has a greater one.
    pub epoch: i64,
}

impl LedgerSource {
    /// Whether no newer run has it; none gets it until the end of the transaction.
    async fn is_ours(&self, transaction: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
        let fence = "SELECT 1 FROM pgrung.sources
                     WHERE import_id = $1 AND source = $2 AND epoch = $3 FOR SHARE";
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.import_id, &self.number, &self.epoch];
        Ok(transaction.query_opt(fence, &parameters).await?.is_some())
    }
}

/// What the ledger says of a batch at the start of its transaction.
#[derive(Debug)]
pub enum Claim {
    /// Not loaded yet; now it is ours.
    Ours,
    /// Loaded by a transaction whose answer was lost.
    Loaded(Tally),
    /// A newer run has taken over.
    TakenOver,
    /// The ledger has another span at this place.
    Conflict,
}

/// What the end of a batch's transaction proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The transaction is alive, and its rows are in the table of the import.
    Here,
    /// The transaction was aborted.
    Vanished,
    /// The name means another table by now, which has the rows of the batch.
    Elsewhere,
}

/// One transaction of one server process, by which it can be found should the connection break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    pid: i32,
    transaction_start: i64,
}

/// The ledger's statements on one connection, prepared at their first use.
#[derive(Default)]
pub struct Statements {
    fence: Option<Statement>,
    claim: Option<Statement>,
    settle: Option<Statement>,
}

/// Begins a transaction in which each statement sees what was committed before it, whatever the
/// server is set to: the ledger waits for locks and then looks.
async fn begin(client: &mut Client) -> Result<Transaction<'_>, tokio_postgres::Error> {
    let transaction = client.build_transaction();
    transaction
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await
}

/// Table of the spans of logged and unlogged targets.
fn spans(unlogged: bool) -> &'static str {
    if unlogged {
        "pgrung.unlogged_spans"
    } else {
        "pgrung.spans"
    }
}

/// Table of the rejects of logged and unlogged targets.
fn rejects(unlogged: bool) -> &'static str {
    if unlogged {
        "pgrung.unlogged_rejects"
    } else {
        "pgrung.rejects"
    }
}

impl Ledger {
    fn spans(&self) -> &'static str {
        spans(self.unlogged)
    }

    /// The batch's source in the ledger.
    pub fn source(&self, batch: &Batch) -> &LedgerSource {
        &self.sources[batch.source]
    }

    /// Whether all sources of this run belong to the import that names it.
    pub fn is_one(&self) -> bool {
        let mine = |source: &LedgerSource| source.import_id == self.import_id;
        self.sources.iter().all(mine)
    }

    /// The imports and numbers of the sources of this run, as two parameters.
    fn keys(&self) -> (Vec<&str>, Vec<i32>) {
        let keys = self.sources.iter();
        keys.map(|source| (source.import_id.as_str(), source.number))
            .unzip()
    }

    /// First step of a batch's transaction: checks that no newer run has taken over, and claims
    /// the batch's span. If another transaction claims it just now, waits for its end.
    pub async fn claim(
        &self,
        client: &Client,
        statements: &mut Statements,
        batch: &Batch,
    ) -> Result<Claim, tokio_postgres::Error> {
        let fence = prepared(&mut statements.fence, client, &fence()).await?;
        let insert = format!(
            "INSERT INTO {spans} (import_id, source, start_byte, end_byte, first_record, records, lines, checksum)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8
             WHERE NOT EXISTS (SELECT FROM (SELECT end_byte FROM {spans}
                                            WHERE import_id = $1 AND source = $2 AND start_byte < $4
                                            ORDER BY start_byte DESC LIMIT 1) AS last_before
                               WHERE end_byte > $3)
             ON CONFLICT DO NOTHING
             RETURNING 1",
            spans = self.spans()
        );
        let insert = prepared(&mut statements.claim, client, &insert).await?;
        let span = batch.span();
        let checksum = checksum(batch.bytes());
        let LedgerSource {
            import_id,
            number,
            epoch,
        } = self.source(batch);
        let kept = checksum.cast_signed();
        let (start, end) = (signed(span.start), signed(span.end));
        let (first_record, records) = (signed(batch.first_record), signed(batch.len() as u64));
        let lines = signed(batch.lines);
        let fence_parameters: [&(dyn ToSql + Sync); 3] = [import_id, number, epoch];
        let parameters: [&(dyn ToSql + Sync); 8] = [
            import_id,
            number,
            &start,
            &end,
            &first_record,
            &records,
            &lines,
            &kept,
        ];
        // Sent together, carried out one after the other: the second sees all that was committed
        // when the first had its lock, also spans compacted meanwhile.
        let (ours, claimed) = futures::join!(
            client.query_opt(&fence, &fence_parameters),
            client.query_opt(&insert, &parameters),
        );
        // Where the source is gone altogether, the claim fails as well.
        if ours?.is_none() {
            return Ok(Claim::TakenOver);
        }
        match claimed? {
            Some(_) => Ok(Claim::Ours),
            None => self.explain(client, batch, checksum).await,
        }
    }

    /// Why a claim found no place.
    async fn explain(
        &self,
        client: &Client,
        batch: &Batch,
        checksum: u64,
    ) -> Result<Claim, tokio_postgres::Error> {
        let sql = format!(
            "SELECT {},
                    (SELECT count(*) FROM {} r WHERE r.import_id = $1 AND r.source = $2
                                                AND r.start_byte >= $3 AND r.start_byte < $4) AS rejects
             FROM {} p WHERE import_id = $1 AND source = $2 AND start_byte <= $3 AND end_byte > $3",
            span_columns(),
            rejects(self.unlogged),
            self.spans()
        );
        let (start, end) = (signed(batch.start_byte), signed(batch.span().end));
        let LedgerSource {
            import_id, number, ..
        } = self.source(batch);
        let row = client
            .query_opt(&sql, &[import_id, number, &start, &end])
            .await?;
        let Some(row) = row else {
            return Ok(Claim::Conflict);
        };
        let span = span_of(&row);
        let same = span.start == batch.start_byte && span.end == batch.span().end;
        if same && span.checksum == Some(checksum) {
            return Ok(Claim::Loaded(span.tally));
        }
        if same || span.end < batch.span().end {
            return Ok(Claim::Conflict);
        }
        // Compacted with its neighbours since: only the rejects are still told apart.
        let rejected = unsigned(row.get("rejects"));
        let stored = (batch.len() as u64).saturating_sub(rejected);
        let tally = Tally::of(Outcome::Inserted, stored).and(Outcome::Rejected, rejected);
        Ok(Claim::Loaded(tally))
    }

    /// Last step before COMMIT: notes what became of the records. That a row is updated proves that
    /// the transaction is alive, and what the table's name means that the rows are where they belong:
    /// the batch's locks keep both so until COMMIT.
    pub async fn settle(
        &self,
        client: &Client,
        statements: &mut Statements,
        batch: &Batch,
        tally: Tally,
    ) -> Result<Settled, tokio_postgres::Error> {
        let sql = format!(
            "UPDATE {} SET {} WHERE import_id = $1 AND source = $2 AND start_byte = $3
             RETURNING to_regclass($4)::oid AS table",
            self.spans(),
            outcome_columns(|number, column| format!("{column} = ${}", number + 5)),
        );
        let statement = prepared(&mut statements.settle, client, &sql).await?;
        let start = signed(batch.start_byte);
        let LedgerSource {
            import_id, number, ..
        } = self.source(batch);
        let kept: Vec<i64> = Outcome::in_ledger()
            .map(|(outcome, _)| signed(tally[outcome]))
            .collect();
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![import_id, number, &start, &self.table.name];
        parameters.extend(kept.iter().map(|rows| rows as &(dyn ToSql + Sync)));
        let settled = client.query_opt(&statement, &parameters).await?;
        Ok(
            match settled.map(|row| row.get::<_, Option<Oid>>("table")) {
                None => Settled::Vanished,
                Some(table) if table == Some(self.table.oid) => Settled::Here,
                Some(_) => Settled::Elsewhere,
            },
        )
    }
}

impl Backend {
    /// The server process.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Runs `begin`, which begins a transaction, and tells which it is: all in one answer, so that
    /// a transaction that holds anything is known. Without that answer it holds nothing yet.
    pub async fn begin(
        client: &Client,
        begin: &str,
    ) -> Result<Option<Self>, tokio_postgres::Error> {
        let sql = format!(
            "{begin}; SELECT pg_backend_pid(), (extract(epoch FROM now()) * 1000000)::bigint"
        );
        let answer = client.simple_query(&sql).await?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let number = |index| row?.get(index)?.parse::<i64>().ok();
        Ok(number(0).zip(number(1)).and_then(|(pid, start)| {
            Some(Backend {
                pid: i32::try_from(pid).ok()?,
                transaction_start: start,
            })
        }))
    }

    /// Ends this transaction if it is still open: its connection broke and the server may not know
    /// it yet. Another transaction of the same process is left alone.
    pub async fn terminate(self, client: &Client) -> Result<(), tokio_postgres::Error> {
        // Behind a pooler too the process in this very transaction is ours; the next one in it is
        // another's. A simple query, because a statement with a name is made in a transaction of
        // its own.
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE pid = {} AND (extract(epoch FROM xact_start) * 1000000)::bigint = {}
               AND pid <> pg_backend_pid()",
            self.pid, self.transaction_start
        );
        client.batch_execute(&sql).await
    }
}

/// Class of the advisory locks of an import: shared by its batches and replays, alone for a compaction of
/// its spans.
const IMPORT_LOCK: i32 = 1_885_827_438;

/// Class of the advisory locks of a table, of which one run at a time is opened.
const TABLE_LOCK: i32 = IMPORT_LOCK + 1;

/// The fence: a newer run raises the epoch and waits for the locks of older transactions.
/// The advisory lock keeps compactions of spans out, and queues behind one that waits.
fn fence() -> String {
    format!(
        "SELECT pg_advisory_xact_lock_shared({IMPORT_LOCK}, hashtext($1)) FROM pgrung.sources
         WHERE import_id = $1 AND source = $2 AND epoch = $3 FOR SHARE"
    )
}

/// The statement in `slot`, prepared at its first use.
async fn prepared(
    slot: &mut Option<Statement>,
    client: &Client,
    sql: &str,
) -> Result<Statement, tokio_postgres::Error> {
    match slot {
        Some(statement) => Ok(statement.clone()),
        None => Ok(slot.insert(client.prepare(sql).await?).clone()),
    }
}

/// The columns of a span's outcomes, each in the form of its number (0-based) and name.
fn outcome_columns(form: impl Fn(usize, &str) -> String) -> String {
    let columns = Outcome::in_ledger().enumerate();
    let forms: Vec<String> = columns
        .map(|(number, (_, column))| form(number, column))
        .collect();
    forms.join(", ")
}

/// The columns that [`span_of`] reads, of a table called `p`.
fn span_columns() -> String {
    let outcomes = outcome_columns(|_, column| format!("p.{column}"));
    format!("p.start_byte, p.end_byte, p.first_record, p.records, p.lines, p.checksum, {outcomes}")
}

/// A span from a row that has [`span_columns`].
fn span_of(row: &Row) -> Span {
    let number = |column| unsigned(row.get::<_, Option<i64>>(column).unwrap_or(0));
    Span {
        start: number("start_byte"),
        end: number("end_byte"),
        first_record: number("first_record"),
        records: number("records"),
        lines: number("lines"),
        tally: Outcome::in_ledger().fold(Tally::default(), |tally, (outcome, column)| {
            tally.and(outcome, number(column))
        }),
        checksum: row
            .get::<_, Option<i64>>("checksum")
            .map(i64::cast_unsigned),
    }
}

/// Counts and offsets are far below 2^63; the database has no unsigned type.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
