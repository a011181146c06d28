//! `pgrung migrate`.

use serde_json::json;

use tokio_postgres::Client;

use super::done::Done;
use crate::cli::MigrateArgs;
use crate::error::Error;
use crate::ledger;
use crate::report::Console;

pub async fn run(args: &MigrateArgs, console: &Console) -> Result<Done, Error> {
    let (mut connection, _private) = args.server.control(console).await?;
    let migrate = |mut client: Client| async {
        let applied = ledger::migrate(&mut client).await?;
        Ok((client, applied))
    };
    let applied = connection.ask("preparing the ledger", migrate).await?;
    let text = match applied.as_slice() {
        [] => "the ledger is up to date\n".to_string(),
        applied => format!("applied {}\n", applied.join(", ")),
    };
    Ok(Done::new(text, json!({ "applied": applied })))
}
