//! `pgrung plan`.

use serde_json::json;
use tokio_postgres::Client;

use super::done::Done;
use crate::cli::PlanArgs;
use crate::error::Error;
use crate::job::{LoadSettings, Number, SettingsError, Size, Time};
use crate::plan::{Basis, Costs, Figure, Origin, Request, ServerTimes, plan};
use crate::report::Console;

pub async fn run(args: &PlanArgs, console: &Console) -> Result<Done, Error> {
    let given = args.round_trip.is_some() && args.commit_time.is_some();
    let named =
        args.server.connection.embedded.is_some() || args.server.connection.names_a_server();
    let times = if named && !given {
        let (mut connection, _private) = args.server.control(console).await?;
        let doing = "measuring round trip and commit";
        let measure = |client: Client| async {
            let measured = ServerTimes::on(&client).await;
            Ok((client, measured.map_err(Error::server(doing))?))
        };
        let measured = connection.ask(doing, measure).await?;
        (measured, Origin::Measured)
    } else {
        (ServerTimes::default(), Origin::Assumed)
    };
    let plan = plan(&request(args, times)).map_err(|error| SettingsError(error.to_string()))?;
    let fields = json!(plan);
    let text = if args.json {
        format!("{fields:#}\n")
    } else {
        format!("{plan}\n")
    };
    Ok(Done::new(text, fields))
}

/// The request, with times that are given, or these.
fn request(args: &PlanArgs, (times, from): (ServerTimes, Origin)) -> Request {
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
    let figure = |given: Option<Time>, time| match given {
        Some(Time(time)) => Figure {
            time,
            from: Origin::Given,
        },
        None => Figure { time, from },
    };
    Request {
        rows_per_second: args.rows_per_second,
        row_bytes: args.row_bytes,
        latency: args.latency.map(|Time(time)| time),
        basis: Basis::new(
            figure(args.round_trip, times.round_trip),
            figure(args.commit_time, times.commit),
            figure(None, times.wal_writer_delay),
        ),
        window: load.window(),
        strategy: load.strategy,
        workers: load.workers(),
        queue: load.queue,
        ledger: !args.no_ledger,
        costs: Costs::default(),
    }
}
