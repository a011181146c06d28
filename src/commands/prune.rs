//! `pgrung prune`.

use serde_json::json;
use tokio_postgres::Client;

use super::done::Done;
use crate::cli::PruneArgs;
use crate::error::Error;
use crate::job::Time;
use crate::ledger::{self, Pruned};
use crate::report::Console;

pub async fn run(args: &PruneArgs, console: &Console) -> Result<Done, Error> {
    let (mut connection, _private) = args.server.control(console).await?;
    connection.require_ledger().await?;
    let Time(age) = args.older_than;
    let prune = |mut client: Client| async {
        let pruned = ledger::prune(&mut client, age, args.dry_run).await?;
        Ok((client, pruned))
    };
    let pruned = connection.ask("pruning the ledger", prune).await?;
    let Pruned {
        imports,
        rejects,
        stagings,
        kept,
    } = pruned;
    let done = if args.dry_run {
        "would be removed"
    } else {
        "removed"
    };
    let text = format!(
        "{done}: {imports} imports, {rejects} rejects, {stagings} staging tables; {kept} old imports stay, because their input would be loaded again\n"
    );
    let fields = json!({
        "dry_run": args.dry_run, "imports": imports, "rejects": rejects, "stagings": stagings, "kept": kept,
    });
    Ok(Done::new(text, fields))
}
