//! Carries out a command: server, signals, work, output, exit code.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{BenchArgs, Cli, Command, ConnectionArgs, LoadArgs};
use crate::connect::ConnectSettings;
use crate::embedded::{Embedded, EmbeddedOptions};
use crate::error::Error;
use crate::exit_code::Exit;
use crate::load::load;
use crate::report::{Console, Summary};
use crate::stop::Stop;

impl Cli {
    /// Where notices of this command go.
    pub fn console(&self) -> Console {
        match &self.command {
            Command::Load(args) => Console::new(args.output.quiet, args.output.verbose),
            Command::Bench(args) => Console::new(args.quiet, false),
        }
    }
}

/// Carries out the command. A first signal sets `stop`, a second one ends the command at once.
pub async fn run(cli: Cli, console: &Console, stop: &Arc<Stop>) -> Exit {
    let second_signal = watch_signals(stop.clone(), console.clone());
    let work = async {
        match cli.command {
            Command::Load(args) => run_load(&args, console, stop).await,
            Command::Bench(args) => run_bench(&args, console, stop).await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        signal = second_signal => Err(Error::Interrupted(signal)),
    };
    result.unwrap_or_else(|error| {
        console.error(&error.chain());
        error.exit()
    })
}

async fn run_load(args: &LoadArgs, console: &Console, stop: &Arc<Stop>) -> Result<Exit, Error> {
    let (settings, _server) =
        server(&args.connection, args.connection.embedded_dir(), console).await?;
    let plan = args.plan(settings)?;
    let outcome = load(&plan, console, stop).await;
    if let Some(summary) = &outcome.summary {
        if !args.output.quiet {
            print(&format!("{summary}\n"))?;
        }
        if let Some(path) = &args.output.summary {
            write_summary(path, summary)?;
        }
    }
    match (outcome.error, outcome.summary) {
        (Some(error), summary) => {
            let committed = summary.map_or(0, |summary| summary.rows.loaded);
            console.notice(&format!(
                "{committed} rows are committed and stay in the table"
            ));
            Err(error)
        }
        (None, Some(summary)) if !summary.balanced => Err(Error::Mismatch(format!(
            "the rows do not balance: {:?}",
            summary.rows
        ))),
        (None, Some(summary)) if summary.rows.suppressed > 0 => Ok(Exit::Rejected),
        (None, _) => Ok(Exit::Loaded),
    }
}

async fn run_bench(args: &BenchArgs, console: &Console, stop: &Arc<Stop>) -> Result<Exit, Error> {
    let dir = match args.connection.embedded_dir() {
        None if !args.connection.names_a_server() => Some(None),
        dir => dir,
    };
    let (settings, _server) = server(&args.connection, dir, console).await?;
    let plan = args.plan(settings)?;
    let results = crate::bench::run(&plan, console, stop).await?;
    print(&if args.json {
        results.json()
    } else if args.markdown {
        results.markdown()
    } else {
        results.text()
    })?;
    Ok(Exit::Loaded)
}

/// The server to use: the one that is named, or a private one in `dir`, which lives as long as
/// the returned guard.
async fn server(
    connection: &ConnectionArgs,
    dir: Option<Option<std::path::PathBuf>>,
    console: &Console,
) -> Result<(ConnectSettings, Option<Embedded>), Error> {
    let Some(dir) = dir else {
        let settings = connection.settings()?;
        for warning in settings.warnings() {
            console.notice(warning);
        }
        return Ok((settings, None));
    };
    console.notice("starting a private PostgreSQL server");
    let options = EmbeddedOptions {
        dir,
        ..EmbeddedOptions::default()
    };
    let server = tokio::task::spawn_blocking(|| Embedded::start(options))
        .await
        .map_err(|panic| Error::Mismatch(format!("starting the server failed: {panic}")))??;
    console.detail(&format!("private server: {}", server.dsn()));
    Ok((ConnectSettings::from_config(server.config()), Some(server)))
}

/// Sets `stop` at the first SIGINT or SIGTERM; returns at the second.
fn watch_signals(stop: Arc<Stop>, console: Console) -> impl Future<Output = i32> {
    let interrupt = SignalKind::interrupt();
    let terminate = SignalKind::terminate();
    let streams = signal(interrupt).ok().zip(signal(terminate).ok());
    async move {
        let Some((mut interrupts, mut terminates)) = streams else {
            return std::future::pending().await;
        };
        let mut seen = false;
        loop {
            let kind = tokio::select! {
                _ = interrupts.recv() => interrupt,
                _ = terminates.recv() => terminate,
            };
            if seen {
                return kind.as_raw_value();
            }
            seen = true;
            console.notice("stopping: batches under way finish first; once more stops at once");
            stop.set_by(kind.as_raw_value());
        }
    }
}

/// Writes to stdout; a reader that went away is no failure.
fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output {
            name: "stdout".to_string(),
            source,
        }),
        _ => Ok(()),
    }
}

fn write_summary(path: &Path, summary: &Summary) -> Result<(), Error> {
    let fail = |source| Error::Output {
        name: path.display().to_string(),
        source,
    };
    let mut file = File::create(path).map_err(fail)?;
    serde_json::to_writer_pretty(&mut file, summary).map_err(|error| fail(error.into()))?;
    file.write_all(b"\n").map_err(fail)
}
