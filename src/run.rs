//! Carries out a command: server, signals, work, output, exit code.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{
    BenchArgs, Cli, Command, ConnectionArgs, LoadArgs, MigrateArgs, PlanArgs, ReplayArgs,
    StatusArgs,
};
use crate::connect::{self, ConnectSettings};
use crate::embedded::{Embedded, EmbeddedOptions};
use crate::error::Error;
use crate::exit_code::Exit;
use crate::ledger;
use crate::load::load;
use crate::plan::{Measured, plan};
use crate::rejects::{ReplayPlan, Replayed, replay};
use crate::report::{Console, LogFormat, Summary, describe_imports};
use crate::stop::Stop;
use crate::strategy::StrategyKind;

impl Cli {
    /// Where notices of this command go.
    pub fn console(&self) -> Console {
        match &self.command {
            Command::Load(args) => Console::new(
                args.output.quiet,
                args.output.verbose,
                args.output.log_format,
            ),
            Command::Bench(args) => Console::new(args.quiet, false, LogFormat::Text),
            Command::Plan(_) | Command::Status(_) | Command::Replay(_) | Command::Migrate(_) => {
                Console::default()
            }
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
            Command::Plan(args) => run_plan(&args).await,
            Command::Status(args) => run_status(&args, console).await,
            Command::Replay(args) => run_replay(&args, console).await,
            Command::Migrate(args) => run_migrate(&args, console).await,
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
    let summary_file = args
        .output
        .summary
        .as_deref()
        .map(SummaryFile::create)
        .transpose()?;
    let outcome = load(&plan, console, stop).await;
    let mut written = Ok(());
    if let Some(summary) = &outcome.summary {
        if !args.output.quiet {
            written = print(&format!("{summary}\n"));
        }
        if let Some(file) = summary_file {
            written = written.and(file.write(summary));
        }
    }
    if let (Err(error), Some(_)) = (&written, &outcome.error) {
        // The load's own error is the one that decides.
        console.error(&error.chain());
        written = Ok(());
    }
    written?;
    match (outcome.error, outcome.summary) {
        (Some(error), Some(summary)) => {
            console.notice(&stopped(&summary));
            Err(error)
        }
        (Some(error), None) => Err(error),
        (None, Some(summary)) if !summary.balanced => Err(Error::Mismatch(format!(
            "the rows do not balance: {:?}",
            summary.rows
        ))),
        (None, Some(summary)) if summary.rows.incomplete() || outcome.leftover_rejects > 0 => {
            Ok(Exit::Rejected)
        }
        (None, _) => Ok(Exit::Loaded),
    }
}

/// What is in the table after a load that did not end well, and how to go on.
fn stopped(summary: &Summary) -> String {
    let committed = summary.rows.loaded;
    let mut text = format!("{committed} rows of this run are committed and stay in the table");
    if let Some(import_id) = &summary.import_id {
        text.push_str(&format!(
            "; to go on: {}",
            resume_command(std::env::args().collect(), import_id)
        ));
    }
    text
}

/// The command that goes on with the import: the same one, with its id, without `--restart`, and
/// without a connection string that could hold a password.
fn resume_command(arguments: Vec<String>, import_id: &str) -> String {
    let mut words = Vec::new();
    let mut hide_next = false;
    let names_import = arguments
        .iter()
        .any(|word| word == "--import-id" || word.starts_with("--import-id="));
    for word in arguments {
        if hide_next || word.starts_with("--dsn=") {
            words.push(if hide_next { "..." } else { "--dsn=..." }.to_string());
            hide_next = false;
            continue;
        }
        hide_next = word == "--dsn";
        if word != "--restart" {
            words.push(shell_word(&word));
        }
        // Right behind the subcommand: behind a `--` it would be a file.
        if word == "load" && !names_import && words.len() == 2 {
            words.push(format!("--import-id {}", shell_word(import_id)));
        }
    }
    words.join(" ")
}

/// `word` as a shell reads it back.
fn shell_word(word: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "-_./=:,@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
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

async fn run_plan(args: &PlanArgs) -> Result<Exit, Error> {
    let given = args.round_trip.is_some() && args.commit_time.is_some();
    let measured = if args.connection.names_a_server() && !given {
        let client = connect::connect(&args.connection.settings()?).await?;
        let measured = Measured::on(&client).await;
        Some(measured.map_err(|error| Error::Server {
            doing: "measuring round trip and commit",
            error,
        })?)
    } else {
        None
    };
    let plan = plan(&args.request(measured)).map_err(|error| Error::Usage(error.to_string()))?;
    if args.json {
        print_json(&plan)?;
    } else {
        print(&format!("{plan}\n"))?;
    }
    Ok(Exit::Loaded)
}

async fn run_status(args: &StatusArgs, console: &Console) -> Result<Exit, Error> {
    let (settings, _server) =
        server(&args.connection, args.connection.embedded_dir(), console).await?;
    let mut client = connect::connect(&settings).await?;
    ledger::require(&mut client).await?;
    let imports = ledger::status(&client, args.import_id.as_deref()).await?;
    if let (Some(import_id), true) = (&args.import_id, imports.is_empty()) {
        return Err(Error::Usage(format!(
            "there is no import {import_id}; `pgrung status` lists them"
        )));
    }
    if args.json {
        print_json(&imports)?;
    } else {
        print(&describe_imports(&imports))?;
    }
    Ok(Exit::Loaded)
}

async fn run_replay(args: &ReplayArgs, console: &Console) -> Result<Exit, Error> {
    if args.strategy == StrategyKind::Discard {
        return Err(Error::Usage(
            "--strategy discard writes nothing, so it can replay nothing".to_string(),
        ));
    }
    let (settings, _server) =
        server(&args.connection, args.connection.embedded_dir(), console).await?;
    let plan = ReplayPlan {
        settings,
        import_id: args.import_id.clone(),
        strategy: args.strategy,
        answer_timeout: args.answer_timeout,
    };
    let Replayed {
        loaded,
        still_bad,
        elapsed,
    } = replay(&plan).await?;
    print(&format!(
        "{loaded} rejects loaded, {still_bad} still bad, in {elapsed:.2?}\n"
    ))?;
    Ok(if still_bad > 0 {
        Exit::Rejected
    } else {
        Exit::Loaded
    })
}

async fn run_migrate(args: &MigrateArgs, console: &Console) -> Result<Exit, Error> {
    let (settings, _server) =
        server(&args.connection, args.connection.embedded_dir(), console).await?;
    let mut client = connect::connect(&settings).await?;
    let applied = ledger::migrate(&mut client).await?;
    print(&match applied.as_slice() {
        [] => "the ledger is up to date\n".to_string(),
        applied => format!("applied {}\n", applied.join(", ")),
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

/// Writes a value to stdout as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Error::Output {
        name: "stdout".to_string(),
        source: error.into(),
    })?;
    print(&format!("{json}\n"))
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

/// The file of `--summary`, made before the load so that a wrong path is found in time.
struct SummaryFile<'a> {
    file: File,
    path: &'a Path,
}

impl<'a> SummaryFile<'a> {
    fn create(path: &'a Path) -> Result<Self, Error> {
        match File::create(path) {
            Ok(file) => Ok(SummaryFile { file, path }),
            Err(error) => Err(Error::Usage(format!(
                "--summary {}: {error}",
                path.display()
            ))),
        }
    }

    fn write(mut self, summary: &Summary) -> Result<(), Error> {
        let written = serde_json::to_writer_pretty(&mut self.file, summary)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|source| Error::Output {
            name: self.path.display().to_string(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resume_command_names_the_import_and_hides_the_connection_string() {
        let arguments = [
            "pgrung",
            "load",
            "a b.csv",
            "--dsn",
            "postgres://u:secret@h/d",
            "--restart",
            "-t",
            "t",
        ];
        let command = resume_command(arguments.map(str::to_string).to_vec(), "id1");
        assert_eq!(
            command,
            "pgrung load --import-id id1 'a b.csv' --dsn ... -t t"
        );
        let joined = ["pgrung", "load", "--dsn=password=x", "--import-id", "mine"];
        let command = resume_command(joined.map(str::to_string).to_vec(), "mine");
        assert_eq!(command, "pgrung load --dsn=... --import-id mine");
    }
}
