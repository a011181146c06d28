//! `pgrung plan`.

use serde_json::json;
use tokio_postgres::Client;

use super::done::Done;
use super::server::connection;
use crate::cli::PlanArgs;
use crate::error::Error;
use crate::job::{LoadSettings, Number, SettingsError, Size, Time};
use crate::plan::{Costs, Request, ServerTimes, plan};
use crate::report::Console;

pub async fn run(args: &PlanArgs, console: &Console) -> Result<Done, Error> {
    let given = args.round_trip.is_some() && args.commit_time.is_some();
    let named = args.connection.embedded.is_some() || args.connection.names_a_server();
    let measured = if named && !given {
        let (settings, _private) = args.connection.server(console).await?;
        let doing = "measuring round trip and commit";
        let measure = |client: Client| async {
            let measured = ServerTimes::on(&client).await;
            Ok((client, measured.map_err(Error::server(doing))?))
        };
        connection(&settings, console).ask(doing, measure).await?
    } else {
        ServerTimes::default()
    };
    let plan = plan(&request(args, measured)).map_err(|error| SettingsError(error.to_string()))?;
    let fields = json!(plan);
    let text = if args.json {
        format!("{fields:#}\n")
    } else {
        format!("{plan}\n")
    };
    Ok(Done::new(text, fields))
}

/// The request, with times that are given or were `measured`.
fn request(args: &PlanArgs, measured: ServerTimes) -> Request {
    let default = LoadSettings::default();
    let number = |Number(number): Number| number;
    let load = LoadSettings {
        strategy: args.strategy.unwrap_or(default.strategy),
        workers: args.workers.map(number).or(default.workers),
        batch_rows: args.batch_rows.map(number),
        batch_bytes: args
            .batch_bytes
            .map_or(default.batch_bytes, |Size(bytes)| bytes),
        max_wait: args.max_wait.map(|Time(time)| time).or(default.max_wait),
        queue: args.queue.map_or(default.queue, number),
        ..default
    };
    Request {
        rows_per_second: args.rows_per_second,
        row_bytes: args.row_bytes,
        latency: args.latency.map(|Time(time)| time),
        round_trip: args
            .round_trip
            .map_or(measured.round_trip, |Time(time)| time),
        commit: args.commit_time.map_or(measured.commit, |Time(time)| time),
        window: load.window(),
        strategy: load.strategy,
        workers: load.workers(),
        queue: load.queue,
        ledger: !args.no_ledger,
        wal_writer_delay: measured.wal_writer_delay,
        costs: Costs::default(),
    }
}
