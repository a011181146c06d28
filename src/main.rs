//! The command `pgrung`: parse, run, print the error chain, exit with the code that tells the end.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use pgrung::{Cli, Exit, Stop};

fn main() -> ExitCode {
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
    let stop = Arc::new(Stop::default());
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))
        .map(|runtime| {
            let exit = runtime.block_on(pgrung::run(cli, &console, &stop));
            // A reader may still wait for stdin; nothing of it is needed any more.
            runtime.shutdown_background();
            exit
        });
    let exit = ended.unwrap_or_else(|message| {
        console.error(&message);
        Exit::Failed
    });
    let _ = std::io::stdout().flush();
    exit.into()
}
