//! Puts the same rows through every strategy, each into a fresh table, and compares them.

mod case;
mod data;
mod delay;
mod half;
mod layout;
mod results;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempPath;
use tokio_postgres::Client;

use self::case::{Case, Reference};
use self::delay::Delay;
use self::results::{CaseRuns, Distant, Machine};
use crate::connect::{self, ConnectSettings};
use crate::error::Error;
use crate::job::{self, Durability, Time};
use crate::merge::Mode;
use crate::report::Console;
use crate::server_error::one_line;
use crate::source::{Input, ReadOptions};
use crate::stop::Stop;
use crate::strategy::StrategyKind;
use crate::target::{Table, quote_name};
use crate::worker::Commit;

pub use data::{LINEITEM, write_lineitem};
pub use results::Results;

/// A bench as meant.
#[derive(Debug, Clone)]
pub struct BenchSettings {
    /// Rows of TPC-H lineitem to make.
    pub rows: usize,
    /// The user's own file and table instead.
    pub own: Option<(PathBuf, String)>,
    /// How the user's own file is read.
    pub read: ReadOptions,
    pub strategies: Vec<StrategyKind>,
    /// What the table holds after a run; other than append: it holds half of the keys before.
    pub mode: Mode,
    /// How often each strategy runs.
    pub rounds: usize,
    /// Longest time of one run.
    pub max_time: Duration,
    /// Rows of a batch, instead of each strategy's default.
    pub batch_rows: Option<usize>,
    pub workers: usize,
    /// What the server waits for at a commit; `None`: as it is set.
    pub durability: Option<Durability>,
    /// Round trips to put between client and server, besides the one there is.
    pub round_trips: Vec<Duration>,
}

impl Default for BenchSettings {
    fn default() -> Self {
        BenchSettings {
            rows: 100_000,
            own: None,
            read: ReadOptions::default(),
            strategies: StrategyKind::ALL.to_vec(),
            mode: Mode::Append,
            rounds: 3,
            max_time: Duration::from_secs(10),
            batch_rows: None,
            workers: 1,
            durability: None,
            round_trips: Vec::new(),
        }
    }
}

/// The defaults that are plain values, by the names of their flags, as the help tells them.
pub fn defaults() -> Vec<(&'static str, String)> {
    let bench = BenchSettings::default();
    let reading = ["quote", "null", "encoding", "max_record_bytes"];
    let mut defaults = job::defaults();
    defaults.retain(|(name, _)| reading.contains(name));
    defaults.extend([
        ("rows", bench.rows.to_string()),
        ("mode", bench.mode.name().to_string()),
        ("rounds", bench.rounds.to_string()),
        ("max_seconds", Time(bench.max_time).to_string()),
        ("workers", bench.workers.to_string()),
    ]);
    defaults
}

/// Where a bench works: a schema of its own, with a table that every run's table is made like.
pub struct Arena {
    server: ConnectSettings,
    client: Client,
    schema: String,
    like: String,
    input: Input,
    read: ReadOptions,
    /// What is loaded, for people.
    what: String,
    /// What the user's table has and its copies lack.
    left_out: Vec<String>,
    _data: Option<TempPath>,
}

/// Runs every strategy `rounds` times, in turns, after one warm-up, and removes what it made.
///
/// # Errors
/// When a load fails, when a run stores other rows than the others, or at a signal.
pub async fn run(
    server: &ConnectSettings,
    bench: &BenchSettings,
    console: &Console,
    stop: &Arc<Stop>,
) -> Result<Results, Error> {
    half::check(bench)?;
    let arena = Arena::make(server, bench).await?;
    let result = compare(bench, &arena, console, stop).await;
    let removed = arena
        .sql(&format!("DROP SCHEMA {} CASCADE", arena.schema))
        .await;
    let results = result?;
    removed?;
    Ok(results)
}

async fn compare(
    bench: &BenchSettings,
    arena: &Arena,
    console: &Console,
    stop: &Arc<Stop>,
) -> Result<Results, Error> {
    let machine = Machine::of(&arena.client)
        .await
        .map_err(Error::server("reading the server's settings"))?;
    if !arena.left_out.is_empty() {
        let left_out = arena.left_out.join(", ");
        console.notice(&format!("the copies of the table lack {left_out}"));
    }
    console.notice(&format!("{}: warm-up", arena.what));
    // The warm-up loads the table that all others are compared with.
    let warm_up = Case {
        strategy: StrategyKind::Copy,
        commit: Commit::Batch,
    };
    let reference = Reference::load(bench, arena, warm_up, stop).await?;
    if bench.mode != Mode::Append {
        half::halve(arena, &reference.table).await?;
    }
    let cases = Case::ladder(&bench.strategies);
    let mut measured: Vec<CaseRuns> = cases.iter().map(|case| CaseRuns::new(*case)).collect();
    for round in 1..=bench.rounds {
        for (case, measured) in cases.iter().zip(&mut measured) {
            console.notice(&format!(
                "round {round} of {}: {}",
                bench.rounds,
                case.name()
            ));
            let run = case
                .run(bench, arena, &arena.server, Some(&reference), stop)
                .await?;
            measured.add(run);
        }
    }
    let mut far = Vec::new();
    for round_trip in &bench.round_trips {
        far.push(compare_far(bench, arena, &reference, *round_trip, console, stop).await?);
    }
    Ok(Results {
        machine,
        far,
        what: arena.what.clone(),
        left_out: arena.left_out.clone(),
        max_time: bench.max_time,
        rows: reference.rows,
        rounds: bench.rounds,
        workers: bench.workers,
        durability: bench.durability,
        measured,
    })
}

/// The same cases with the server `round_trip` away; one round, because the delay drowns the
/// noise.
async fn compare_far(
    bench: &BenchSettings,
    arena: &Arena,
    reference: &Reference,
    round_trip: Duration,
    console: &Console,
    stop: &Arc<Stop>,
) -> Result<Distant, Error> {
    let delay = Delay::start(&arena.server, round_trip)
        .await
        .map_err(|source| Error::Output {
            name: "the delayed connection".to_string(),
            source,
        })?;
    let mut measured = Vec::new();
    // What sends nothing has no round trips.
    let cases = Case::ladder(&bench.strategies);
    for case in cases
        .into_iter()
        .filter(|case| case.strategy != StrategyKind::Discard)
    {
        console.notice(&format!("round trip {round_trip:?}: {}", case.name()));
        let run = case
            .run(bench, arena, delay.settings(), Some(reference), stop)
            .await?;
        let mut one = CaseRuns::new(case);
        one.add(run);
        measured.push(one);
    }
    Ok(Distant {
        round_trip,
        measured,
    })
}

impl Arena {
    async fn make(at: &ConnectSettings, bench: &BenchSettings) -> Result<Self, Error> {
        let client = connect::connect(at).await?;
        let schema = format!("pgrung_bench_{}", std::process::id());
        let mut left_out = Vec::new();
        let (input, read, like, what, data) = match &bench.own {
            Some((path, table)) => {
                let table = Table::find(&client, table).await?;
                left_out = table
                    .beyond_like(&client)
                    .await
                    .map_err(Error::server("reading the catalog"))?;
                let what = one_line(&format!(
                    "{} into a copy of {}",
                    path.display(),
                    table.quoted()
                ));
                let like = format!("(LIKE {} INCLUDING ALL)", table.quoted());
                (
                    Input::File(path.clone()),
                    bench.read.clone(),
                    like,
                    what,
                    None,
                )
            }
            None => {
                let rows = bench.rows;
                let made = tokio::task::spawn_blocking(move || data::lineitem(rows)).await;
                let file = made
                    .map_err(std::io::Error::other)
                    .flatten()
                    .map_err(|source| Error::Output {
                        name: "the bench's rows".to_string(),
                        source,
                    })?
                    .into_temp_path();
                let input = Input::File(file.to_path_buf());
                (
                    input,
                    ReadOptions::default(),
                    data::lineitem_table(bench.mode),
                    "TPC-H lineitem".to_string(),
                    Some(file),
                )
            }
        };
        let what = match bench.mode {
            Mode::Append => what,
            mode => format!("{what} ({}, half of the keys there)", mode.name()),
        };
        let like_name = format!("{}.\"model\"", quote_name(&schema));
        let arena = Arena {
            server: at.clone(),
            client,
            schema: quote_name(&schema),
            like: like_name,
            input,
            read,
            what,
            left_out,
            _data: data,
        };
        arena
            .sql(&format!("CREATE SCHEMA {}", arena.schema))
            .await?;
        let model = arena
            .sql(&format!("CREATE TABLE {} {like}", arena.like))
            .await;
        if let Err(error) = model {
            arena
                .sql(&format!("DROP SCHEMA {} CASCADE", arena.schema))
                .await?;
            return Err(error);
        }
        Ok(arena)
    }

    async fn sql(&self, sql: &str) -> Result<(), Error> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(Error::server("setting up the bench"))
    }
}
