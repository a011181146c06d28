//! `pgrung migrate`.

use serde_json::json;

use super::done::Done;
use crate::cli::MigrateArgs;
use crate::error::Error;
use crate::report::Console;
use crate::{connect, ledger};

pub async fn run(args: &MigrateArgs, console: &Console) -> Result<Done, Error> {
    let (settings, _private) = args.connection.server(console).await?;
    let mut client = connect::connect(&settings).await?;
    let applied = ledger::migrate(&mut client).await?;
    let text = match applied.as_slice() {
        [] => "the ledger is up to date\n".to_string(),
        applied => format!("applied {}\n", applied.join(", ")),
    };
    Ok(Done::new(text, json!({ "applied": applied })))
}
