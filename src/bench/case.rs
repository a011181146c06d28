//! One run of one case: a fresh table, the load, and proof that it holds the right rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Arena, BenchSettings, half};
use crate::connect::ConnectSettings;
use crate::error::Error;
use crate::job::{LedgerUse, LoadSettings};
use crate::load::{Control, load};
use crate::machine;
use crate::merge::{MergeAt, Mode};
use crate::report::{Console, Counters, LogFormat, ProgressMode};
use crate::stop::Stop;
use crate::strategy::StrategyKind;
use crate::target::{Target, quote_name};
use crate::worker::{Commit, OnError, RetryLimits};

/// Longest answer and delivery: a case that is slow is to be measured.
const LONGEST: Duration = Duration::from_secs(600);

/// One line of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// How batches become statements.
    pub strategy: StrategyKind,
    /// What a commit covers.
    pub commit: Commit,
}

/// What one run measured.
pub struct Run {
    /// Rows stored (for `discard`: encoded).
    pub rows: u64,
    /// Wall-clock time of the load.
    pub seconds: f64,
    /// What was counted, commit latencies among it.
    pub counters: Arc<Counters>,
    /// Write-ahead log written meanwhile, by whomever.
    pub wal_bytes: u64,
    /// Size of the table with its indexes and TOAST.
    pub table_bytes: u64,
    /// Processor time of this process.
    pub client_cpu: Duration,
}

/// The table that every run is compared with.
pub struct Reference {
    /// Rows of the input.
    pub rows: u64,
    /// Rows of the table: fewer, if some have one key.
    stored: u64,
    sum: String,
    pub(super) table: String,
    columns: String,
}

impl Case {
    /// The cases of these strategies. `insert` comes twice: with a commit a row, which is the
    /// foot of the ladder, and with a commit a batch.
    pub fn ladder(strategies: &[StrategyKind]) -> Vec<Case> {
        let mut cases = Vec::new();
        for &strategy in strategies {
            if strategy == StrategyKind::Insert {
                cases.push(Case {
                    strategy,
                    commit: Commit::Row,
                });
            }
            cases.push(Case {
                strategy,
                commit: Commit::Batch,
            });
        }
        cases
    }

    /// Name in the report.
    pub fn name(self) -> &'static str {
        match (self.strategy, self.commit) {
            (StrategyKind::Insert, Commit::Row) => "insert, commit a row",
            (strategy, _) => strategy.name(),
        }
    }

    /// What textbooks give this case, in rows a second.
    pub fn textbook(self) -> &'static str {
        match (self.strategy, self.commit) {
            (StrategyKind::Insert, Commit::Row) => "1-5k",
            (StrategyKind::MultiInsert, _) => "5-50k",
            (StrategyKind::Copy, _) => "50-500k",
            _ => "",
        }
    }

    /// The load of this case: no ledger and no second tries, which would be another thing to
    /// measure.
    fn settings(self, bench: &BenchSettings, arena: &Arena, table: &str) -> LoadSettings {
        LoadSettings {
            inputs: vec![arena.input.clone()],
            read: arena.read.clone(),
            table: table.to_string(),
            mode: bench.mode,
            merge: MergeAt::Batch,
            strategy: self.strategy,
            workers: Some(bench.workers),
            batch_rows: bench.batch_rows,
            max_wait: None,
            commit: self.commit,
            durability: bench.durability,
            retries: RetryLimits {
                answer_timeout: LONGEST,
                delivery_timeout: LONGEST,
                max_retries: 0,
            },
            ledger: LedgerUse::Off,
            on_error: OnError::Stop,
            progress: ProgressMode::None,
            ..LoadSettings::default()
        }
    }

    /// Loads into a fresh table, checks it and removes it.
    ///
    /// # Errors
    /// When the load fails or stores other rows than the reference.
    pub async fn run(
        self,
        bench: &BenchSettings,
        arena: &Arena,
        server_settings: &ConnectSettings,
        reference: Option<&Reference>,
        stop: &Arc<Stop>,
    ) -> Result<Run, Error> {
        let table = format!("{}.\"run\"", arena.schema);
        let (run, target) = self
            .load(
                bench,
                arena,
                server_settings,
                &table,
                Some(bench.max_time),
                stop,
            )
            .await?;
        if let Some(reference) = reference
            && let Some(target) = target
        {
            self.check(bench, arena, &run, &target, reference).await?;
        }
        arena.sql(&format!("DROP TABLE {table}")).await?;
        Ok(run)
    }

    async fn load(
        self,
        bench: &BenchSettings,
        arena: &Arena,
        server_settings: &ConnectSettings,
        table: &str,
        max_time: Option<Duration>,
        stop: &Arc<Stop>,
    ) -> Result<(Run, Option<Arc<Target>>), Error> {
        arena
            .sql(&format!(
                "CREATE TABLE {table} (LIKE {} INCLUDING ALL)",
                arena.like
            ))
            .await?;
        if bench.mode != Mode::Append && max_time.is_some() {
            half::fill(arena, table).await?;
        }
        // A checkpoint in mid-run would hit one rung and spare another. Only some roles may ask
        // for one; without it the figures are noisier, not wrong.
        let _ = arena.client.batch_execute("CHECKPOINT").await;
        let wal_before = wal_position(arena).await?;
        let cpu_before = machine::cpu_time();
        let own_stop = Arc::<Stop>::default();
        let watch = tokio::spawn({
            let (own, outer) = (own_stop.clone(), stop.clone());
            async move {
                let time = max_time.unwrap_or(Duration::MAX);
                tokio::select! {
                    () = tokio::time::sleep(time) => own.set(),
                    () = outer.wait() => match outer.signal() {
                        Some(signal) => own.set_by(signal),
                        None => own.set(),
                    },
                }
            }
        });
        let control = Control {
            console: Console::new(true, false, LogFormat::Text),
            stop: own_stop,
        };
        let settings = self.settings(bench, arena, table);
        let begun = Instant::now();
        let outcome = load(server_settings, &settings, &control).await;
        watch.abort();
        let (rows, seconds) = match (outcome.error, outcome.summary) {
            // Its time was over before it began to read.
            (Some(Error::Interrupted(_)), None) if !stop.is_set() => {
                (0, begun.elapsed().as_secs_f64())
            }
            (Some(error), _) => return Err(error),
            (None, Some(summary)) if bench.mode == Mode::Append => {
                (summary.rows.tally.passed(), summary.elapsed_seconds)
            }
            (None, Some(summary)) => (summary.rows.read, summary.elapsed_seconds),
            (None, None) => {
                return Err(Error::BenchMismatch(
                    "a load ended without a summary".to_string(),
                ));
            }
        };
        let client_cpu = machine::cpu_time().saturating_sub(cpu_before);
        let wal_bytes = wal_position(arena).await?.saturating_sub(wal_before);
        let table_bytes = table_bytes(arena, table).await?;
        let run = Run {
            rows,
            seconds,
            counters: outcome.counters,
            wal_bytes,
            table_bytes,
            client_cpu,
        };
        Ok((run, outcome.target))
    }

    async fn check(
        self,
        bench: &BenchSettings,
        arena: &Arena,
        run: &Run,
        target: &Target,
        reference: &Reference,
    ) -> Result<(), Error> {
        let (rows, sum) = contents(arena, &target.table, &reference.columns).await?;
        let is_whole = run.rows == reference.rows;
        let expected = match (self.strategy, bench.mode) {
            (StrategyKind::Discard, Mode::Append) => Some(0),
            (StrategyKind::Discard, _) => None,
            (_, Mode::Append) => Some(run.rows),
            _ => is_whole.then_some(reference.stored),
        };
        if let Some(expected) = expected.filter(|expected| rows != *expected) {
            return Err(Error::BenchMismatch(format!(
                "{}: the table holds {rows} rows, the load counted {expected}",
                self.name()
            )));
        }
        let is_sent = self.strategy != StrategyKind::Discard;
        // What is ignored is as it was.
        if is_whole && is_sent && bench.mode != Mode::Ignore {
            if sum != reference.sum {
                return Err(Error::BenchMismatch(format!(
                    "{}: the table holds other rows than the reference",
                    self.name()
                )));
            }
            return Ok(());
        }
        // Every row must be one of the reference, or one that was there.
        let columns = &reference.columns;
        let known = match bench.mode {
            Mode::Append => reference.table.clone(),
            _ => format!(
                "{} UNION ALL SELECT ROW({columns})::text FROM {}",
                reference.table,
                half::half(arena)
            ),
        };
        let sql = format!(
            "SELECT count(*) AS strange FROM (SELECT ROW({columns})::text FROM {} EXCEPT ALL (SELECT ROW({columns})::text FROM {known})) AS d",
            target.table,
        );
        let row = arena
            .client
            .query_one(&sql, &[])
            .await
            .map_err(Error::server("comparing the rows"))?;
        match row.get::<_, i64>("strange") {
            0 => Ok(()),
            strange => Err(Error::BenchMismatch(format!(
                "{}: {strange} rows of the table are not in the reference",
                self.name()
            ))),
        }
    }
}

impl Reference {
    /// Loads the whole input once; this is the warm-up too.
    ///
    /// # Errors
    /// When the load fails or the table does not hold what the load counted.
    pub async fn load(
        bench: &BenchSettings,
        arena: &Arena,
        case: Case,
        stop: &Arc<Stop>,
    ) -> Result<Self, Error> {
        let table = format!("{}.\"reference\"", arena.schema);
        let (run, target) = case
            .load(bench, arena, &arena.server, &table, None, stop)
            .await?;
        let names = target.iter().flat_map(|target| target.inputs());
        let names: Vec<String> = names.map(|column| quote_name(&column.name)).collect();
        let columns = names.join(", ");
        let (rows, sum) = contents(arena, &table, &columns).await?;
        if rows != run.rows && bench.mode == Mode::Append {
            return Err(Error::BenchMismatch(format!(
                "warm-up: the table holds {rows} rows, the load counted {}",
                run.rows
            )));
        }
        Ok(Reference {
            rows: run.rows,
            stored: rows,
            sum,
            table,
            columns,
        })
    }
}

/// Number of rows and a checksum over the loaded columns that does not depend on their order.
async fn contents(arena: &Arena, table: &str, columns: &str) -> Result<(u64, String), Error> {
    let sql = format!(
        "SELECT count(*) AS rows, coalesce(sum(hashtextextended(ROW({columns})::text, 0)), 0)::text AS sum FROM {table}"
    );
    let row = arena
        .client
        .query_one(&sql, &[])
        .await
        .map_err(Error::server("reading the rows back"))?;
    let rows = u64::try_from(row.get::<_, i64>("rows")).unwrap_or(0);
    Ok((rows, row.get("sum")))
}

/// Size of the table with its indexes and TOAST.
async fn table_bytes(arena: &Arena, table: &str) -> Result<u64, Error> {
    let sql = "SELECT pg_total_relation_size($1::text::regclass) AS bytes";
    let row = arena.client.query_one(sql, &[&table]).await;
    let row = row.map_err(Error::server("reading the size of the table"))?;
    Ok(u64::try_from(row.get::<_, i64>("bytes")).unwrap_or(0))
}

async fn wal_position(arena: &Arena) -> Result<u64, Error> {
    let row = arena
        .client
        .query_one(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS bytes",
            &[],
        )
        .await
        .map_err(Error::server("reading the WAL position"))?;
    Ok(u64::try_from(row.get::<_, i64>("bytes")).unwrap_or(0))
}
