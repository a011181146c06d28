//! Puts the same rows through every strategy, each into a fresh table, and compares them.

mod data;
mod delay;
mod results;
mod rung;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempPath;
use tokio_postgres::Client;

use self::delay::Delay;
use self::results::{Far, Machine, Measured};
use self::rung::{Reference, Rung};
use crate::connect::{self, ConnectSettings};
use crate::error::Error;
use crate::report::Console;
use crate::source::{Input, ReadOptions};
use crate::stop::Stop;
use crate::strategy::StrategyKind;
use crate::table::{Table, quote_name};

pub use data::{LINEITEM, write_lineitem};
pub use results::Results;

/// A bench as meant.
#[derive(Debug, Clone)]
pub struct BenchPlan {
    /// Where the server is.
    pub settings: ConnectSettings,
    /// Rows of TPC-H lineitem to make.
    pub rows: usize,
    /// The user's own file and table instead.
    pub own: Option<(PathBuf, String)>,
    /// How the user's own file is read.
    pub read: ReadOptions,
    /// What is compared.
    pub strategies: Vec<StrategyKind>,
    /// How often each strategy runs.
    pub rounds: usize,
    /// Longest time of one run.
    pub max_time: Duration,
    /// Rows of a batch, instead of each strategy's default.
    pub batch_rows: Option<usize>,
    /// Connections that write.
    pub workers: usize,
    /// Round trips to put between client and server, besides the one there is.
    pub round_trips: Vec<Duration>,
}

/// Where a bench works: a schema of its own, with a table that every run's table is made like.
pub struct Arena {
    client: Client,
    schema: String,
    /// The model, quoted.
    like: String,
    input: Input,
    read: ReadOptions,
    /// What is loaded, for people.
    what: String,
    _data: Option<TempPath>,
}

/// Runs every strategy `rounds` times, in turns, after one warm-up, and removes what it made.
///
/// # Errors
/// When a load fails, when a run stores other rows than the others, or at a signal.
pub async fn run(plan: &BenchPlan, console: &Console, stop: &Arc<Stop>) -> Result<Results, Error> {
    let client = connect::connect(&plan.settings).await?;
    let schema = format!("pgrung_bench_{}", std::process::id());
    let made = Arena::make(plan, client, schema).await;
    let arena = made?;
    let result = compare(plan, &arena, console, stop).await;
    let removed = arena
        .sql(&format!("DROP SCHEMA {} CASCADE", arena.schema))
        .await;
    let results = result?;
    removed?;
    Ok(results)
}

async fn compare(
    plan: &BenchPlan,
    arena: &Arena,
    console: &Console,
    stop: &Arc<Stop>,
) -> Result<Results, Error> {
    let machine = Machine::of(&arena.client)
        .await
        .map_err(server("reading the server's settings"))?;
    console.notice(&format!("{}: warm-up", arena.what));
    // The warm-up loads the table that all others are compared with.
    let warm_up = Rung {
        strategy: StrategyKind::Copy,
        commit: crate::worker::Commit::Batch,
    };
    let reference = Reference::load(plan, arena, warm_up, stop).await?;
    let rungs = Rung::ladder(&plan.strategies);
    let mut measured: Vec<Measured> = rungs.iter().map(|rung| Measured::new(*rung)).collect();
    for round in 1..=plan.rounds {
        for (rung, measured) in rungs.iter().zip(&mut measured) {
            console.notice(&format!(
                "round {round} of {}: {}",
                plan.rounds,
                rung.name()
            ));
            let run = rung
                .run(plan, arena, &plan.settings, Some(&reference), stop)
                .await?;
            measured.add(run);
        }
    }
    let mut far = Vec::new();
    for round_trip in &plan.round_trips {
        far.push(compare_far(plan, arena, &reference, *round_trip, console, stop).await?);
    }
    Ok(Results {
        machine,
        far,
        what: arena.what.clone(),
        rows: reference.rows,
        rounds: plan.rounds,
        workers: plan.workers,
        measured,
    })
}

/// The same rungs with the server `round_trip` away; one round, because the delay drowns the
/// noise.
async fn compare_far(
    plan: &BenchPlan,
    arena: &Arena,
    reference: &Reference,
    round_trip: Duration,
    console: &Console,
    stop: &Arc<Stop>,
) -> Result<Far, Error> {
    let delay = Delay::start(&plan.settings, round_trip)
        .await
        .map_err(|source| Error::Output {
            name: "the delayed connection".to_string(),
            source,
        })?;
    let mut measured = Vec::new();
    // What sends nothing has no round trips.
    let rungs = Rung::ladder(&plan.strategies);
    for rung in rungs
        .into_iter()
        .filter(|rung| rung.strategy != StrategyKind::Discard)
    {
        console.notice(&format!("round trip {round_trip:?}: {}", rung.name()));
        let run = rung
            .run(plan, arena, delay.settings(), Some(reference), stop)
            .await?;
        let mut one = Measured::new(rung);
        one.add(run);
        measured.push(one);
    }
    Ok(Far {
        round_trip,
        measured,
    })
}

impl Arena {
    async fn make(plan: &BenchPlan, client: Client, schema: String) -> Result<Self, Error> {
        let (input, read, like, what, data) = match &plan.own {
            Some((path, table)) => {
                let table = Table::find(&client, table).await?;
                let what = format!("{} into a copy of {}", path.display(), table.quoted());
                let like = format!("(LIKE {} INCLUDING ALL)", table.quoted());
                (
                    Input::File(path.clone()),
                    plan.read.clone(),
                    like,
                    what,
                    None,
                )
            }
            None => {
                let rows = plan.rows;
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
                    data::LINEITEM.to_string(),
                    "TPC-H lineitem".to_string(),
                    Some(file),
                )
            }
        };
        let like_name = format!("{}.\"model\"", quote_name(&schema));
        let arena = Arena {
            client,
            schema: quote_name(&schema),
            like: like_name,
            input,
            read,
            what,
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
            .map_err(server("setting up the bench"))
    }
}

fn server(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
    move |error| Error::Server { doing, error }
}
