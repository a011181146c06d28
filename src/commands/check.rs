//! `pgrung check`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::done::Done;
use super::load;
use crate::cli::LoadArgs;
use crate::connect::ConnectSettings;
use crate::error::Error;
use crate::job::{LedgerUse, LoadSettings};
use crate::load::{Control, LoadEnd, load as run_load};
use crate::queue::Overflow;
use crate::report::{Console, ProgressMode};
use crate::stop::Stop;
use crate::worker::Commit;

pub async fn run(args: &LoadArgs, console: &Console, stop: &Arc<Stop>) -> Result<Done, Error> {
    let settings = args.settings.clone().complete()?;
    settings.check()?;
    let (server, _private) = args.connection.server(console).await?;
    let mut done = one(&server, settings, console, stop).await;
    if done.fields.is_empty() {
        done.fields = load::nothing(&args.settings);
    }
    Ok(done)
}

/// One load, for real, and then rolled back.
pub async fn one(
    server: &ConnectSettings,
    settings: LoadSettings,
    console: &Console,
    stop: &Arc<Stop>,
) -> Done {
    let settings = LoadSettings {
        rehearses: true,
        progress: match console.is_quiet() {
            true => ProgressMode::None,
            false => settings.progress,
        },
        // Of its own, and gone at the end.
        ledger: LedgerUse::On {
            import_id: None,
            restart: true,
        },
        commit: Commit::Batch,
        overflow: Overflow::Block,
        spill_dir: None,
        metrics: None,
        metrics_file: None,
        ..settings
    };
    let control = Control {
        console: console.clone(),
        stop: stop.clone(),
    };
    done(run_load(server, &settings, &control).await)
}

fn done(end: LoadEnd) -> Done {
    let Some(mut summary) = end.summary else {
        return match end.error {
            Some(error) => Done::failed(&error),
            None => Done::new(String::new(), json!({})),
        };
    };
    // It is forgotten.
    summary.import_id = None;
    let rehearsal = end.rehearsal.unwrap_or_default();
    let mut text = format!(
        "check of {} ({}): nothing is changed\n",
        summary.table, summary.mode
    );
    // Into a string there is no error.
    let _ = summary.write_outcome(&mut text);
    text.push_str(&format!("{rehearsal}\n"));
    let mut fields = json!(summary);
    if let (Some(fields), Value::Object(found)) = (fields.as_object_mut(), json!(rehearsal)) {
        fields.extend(found);
    }
    let mut done = Done::new(text, fields);
    done.exit_with(&summary, end.error, 0);
    done
}
