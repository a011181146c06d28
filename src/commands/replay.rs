//! `pgrung replay`.

use serde_json::json;

use super::done::Done;
use crate::cli::ReplayArgs;
use crate::error::Error;
use crate::exit_code::Exit;
use crate::job::{LoadSettings, SettingsError};
use crate::load::{Replayed, replay};
use crate::report::Console;
use crate::strategy::StrategyKind;

pub async fn run(args: &ReplayArgs, console: &Console) -> Result<Done, Error> {
    let mut settings = LoadSettings::default();
    settings.strategy = args.strategy.unwrap_or(settings.strategy);
    settings.retries = args.server.limits()?;
    if settings.strategy == StrategyKind::Discard {
        return Err(SettingsError(
            "--strategy discard writes nothing, so it can replay nothing".to_string(),
        )
        .into());
    }
    let (server, _private) = args.server.connection.server(console).await?;
    let Replayed {
        loaded,
        still_bad,
        elapsed,
    } = replay(&server, &args.import_id, &settings, console).await?;
    let rejects = if loaded == 1 { "reject" } else { "rejects" };
    let mut done = Done::new(
        format!("{loaded} {rejects} loaded, {still_bad} still bad, in {elapsed:.2?}\n"),
        json!({ "import_id": args.import_id, "loaded": loaded, "still_bad": still_bad }),
    );
    if still_bad > 0 {
        done.exit = Exit::Rejected;
    }
    Ok(done)
}
