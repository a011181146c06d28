//! One file a command: arguments to settings, work, exit code. Nothing else knows all three.

mod bench;
mod check;
mod completions;
mod done;
mod hook;
mod load;
mod man;
mod migrate;
mod misplaced;
mod plan;
mod prune;
mod rejects;
mod replay;
mod resume;
mod run;
mod server;
mod status;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};

use self::done::{Done, SummaryFile};
use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::exit_code::Exit;
use crate::job::{SettingsError, check_output, inputs};
use crate::report::{Console, LogFormat};
use crate::server_error::harmless;
use crate::source::Input;
use crate::stop::Stop;

/// The program: parse, runtime, exit with the code that tells the end.
pub fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let arguments = arguments.map(|word| word.to_string_lossy().into_owned());
    if let Some(advice) = misplaced::misplaced(arguments) {
        Console::default().error(&advice);
        return Exit::Usage.into();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no failure.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Loaded.into()
            };
        }
    };
    let console = cli.console();
    let stop = Arc::<Stop>::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let exit = match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(run(cli, &console, &stop));
            // A reader may still wait for stdin; nothing of it is needed any more.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            console.error(&format!("cannot start: {error}"));
            Exit::Failed
        }
    };
    exit.into()
}

impl Cli {
    /// Where notices of this command go.
    fn console(&self) -> Console {
        let output = &self.output;
        Console::new(
            output.quiet,
            output.verbose,
            output.log_format.unwrap_or_default(),
        )
    }
}

/// Carries out the command: signals, work, output, exit code. A first signal sets `stop`, a second
/// one ends the command at once.
async fn run(cli: Cli, console: &Console, stop: &Arc<Stop>) -> Exit {
    let started = SystemTime::now();
    let second_signal = watch_signals(stop.clone(), console.clone());
    let summary_file = match summary_file(&cli) {
        Ok(file) => file,
        Err(error) => {
            console.error(&error.to_string());
            return Exit::Usage;
        }
    };
    let name = cli.command.name();
    let mut done = tokio::select! {
        result = carry_out(&cli.command, console, stop) => result.unwrap_or_else(|error| {
            Done { fields: nothing(&cli.command), ..Done::failed(&error) }
        }),
        // What it has done until now is known to the work alone.
        signal = second_signal => Done::failed(&Error::Interrupted(signal)),
    };
    let shown = if cli.output.quiet {
        Ok(())
    } else if console.format() == LogFormat::Json {
        print(&format!("{:#}\n", done.account(name, started)))
    } else {
        print(&done.text)
    };
    if let Some(notice) = &done.notice {
        console.notice(notice);
    }
    done.or_failed(shown, console);
    let account = done.account(name, started);
    let written = summary_file.map_or(Ok(()), |file| file.write(&account));
    done.or_failed(written, console);
    if let Some(error) = &done.error {
        console.error(error);
    }
    done.exit
}

/// The fields of a command that ended before it began.
fn nothing(command: &Command) -> Map<String, Value> {
    match command {
        Command::Load(args) | Command::Check(args) => load::nothing(&args.settings),
        _ => Map::new(),
    }
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Command::Load(_) => "load",
            Command::Check(_) => "check",
            Command::Run(_) => "run",
            Command::Bench(_) => "bench",
            Command::Plan(_) => "plan",
            Command::Status(_) => "status",
            Command::Rejects(_) => "rejects",
            Command::Replay(_) => "replay",
            Command::Prune(_) => "prune",
            Command::Migrate(_) => "migrate",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
        }
    }
}

async fn carry_out(command: &Command, console: &Console, stop: &Arc<Stop>) -> Result<Done, Error> {
    match command {
        Command::Load(args) => load::run(args, console, stop).await,
        Command::Check(args) => check::run(args, console, stop).await,
        Command::Run(args) => run::run(args, console, stop).await,
        Command::Bench(args) => bench::run(args, console, stop).await,
        Command::Plan(args) => plan::run(args, console).await,
        Command::Status(args) => status::run(args, console).await,
        Command::Rejects(args) => rejects::run(args, console).await,
        Command::Replay(args) => replay::run(args, console).await,
        Command::Prune(args) => prune::run(args, console).await,
        Command::Migrate(args) => migrate::run(args, console).await,
        Command::Completions(args) => Ok(completions::run(args)),
        Command::Man(args) => man::run(args),
    }
}

/// The file of `--summary`, made before the work so that a wrong path is found in time.
fn summary_file(cli: &Cli) -> Result<Option<SummaryFile>, SettingsError> {
    let Some(path) = &cli.output.summary else {
        return Ok(None);
    };
    // What is no input is told by the load itself, in this very file.
    let inputs = match &cli.command {
        Command::Load(args) | Command::Check(args) => {
            inputs(&args.settings.inputs).unwrap_or_default()
        }
        Command::Run(args) => run::read(args),
        Command::Bench(args) => args.inputs.iter().cloned().map(Input::File).collect(),
        _ => Vec::new(),
    };
    check_output(&inputs, "--summary", path)?;
    SummaryFile::create(path).map(Some)
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

/// Writes to stdout; a reader that went away is no failure. Names are escaped where they are put
/// into lines; what JSON leaves as it is, is escaped here, in its own way.
fn print(text: &str) -> Result<(), Error> {
    let text = harmless(text);
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
