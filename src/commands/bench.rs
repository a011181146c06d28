//! `pgrung bench`.

use std::sync::Arc;

use super::done::Done;
use super::server::private_server;
use crate::bench::{self, BenchSettings};
use crate::cli::BenchArgs;
use crate::error::Error;
use crate::job::{Number, Time};
use crate::report::Console;
use crate::stop::Stop;
use crate::strategy::StrategyKind;

pub async fn run(args: &BenchArgs, console: &Console, stop: &Arc<Stop>) -> Result<Done, Error> {
    let connection = &args.connection;
    let (server, _private) = if connection.embedded.is_none() && !connection.names_a_server() {
        private_server(None, console).await?
    } else {
        connection.server(console).await?
    };
    let results = bench::run(&server, &settings(args), console, stop).await?;
    let fields = results.json();
    let text = if args.json {
        format!("{fields:#}\n")
    } else if args.markdown {
        results.markdown()
    } else {
        results.text()
    };
    Ok(Done::new(text, fields))
}

fn settings(args: &BenchArgs) -> BenchSettings {
    let default = BenchSettings::default();
    let number = |Number(number): Number| number;
    let round_trips = args.round_trips.iter().map(|Time(time)| *time);
    BenchSettings {
        rows: args.rows.map_or(default.rows, number),
        own: args.inputs.clone().zip(args.table.clone()),
        read: args.reading.clone().options(),
        strategies: if args.strategies.is_empty() {
            StrategyKind::ALL.to_vec()
        } else {
            args.strategies.clone()
        },
        mode: args.mode.unwrap_or(default.mode),
        rounds: args.rounds.map_or(default.rounds, number),
        max_time: args.max_seconds.map_or(default.max_time, |Time(time)| time),
        batch_rows: args.batch_rows.map(number),
        workers: args.workers.map_or(default.workers, number),
        durability: args.durability,
        // Without a delay it is the comparison that is made anyway.
        round_trips: round_trips.filter(|time| !time.is_zero()).collect(),
    }
}
