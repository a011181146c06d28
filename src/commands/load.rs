//! `pgrung load`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::done::Done;
use super::resume::resume_command;
use crate::cli::LoadArgs;
use crate::connect::ConnectSettings;
use crate::error::Error;
use crate::exit_code::Exit;
use crate::job::{LoadSettings, PartialSettings};
use crate::load::{Control, LoadEnd, load};
use crate::outcome::Outcome;
use crate::report::{Console, ProgressMode, Summary};
use crate::source::Input;
use crate::stop::Stop;

pub async fn run(args: &LoadArgs, console: &Console, stop: &Arc<Stop>) -> Result<Done, Error> {
    let settings = args.settings.clone().complete()?;
    settings.check()?;
    let (server, _private) = args.connection.server(console).await?;
    // A file is known by its content, under whatever import; a pipe only by the import's id.
    let is_pipe = |input: &Input| !matches!(input.size(), Ok(Some(_)));
    let pipe = settings.inputs.iter().any(is_pipe);
    let mut done = one(&server, settings, pipe, console, stop).await;
    if done.fields.is_empty() {
        done.fields = nothing(&args.settings);
    }
    Ok(done)
}

/// One load. `names_import`: the command that goes on with it is to name the import.
pub async fn one(
    server: &ConnectSettings,
    mut settings: LoadSettings,
    names_import: bool,
    console: &Console,
    stop: &Arc<Stop>,
) -> Done {
    if console.is_quiet() {
        settings.progress = ProgressMode::None;
    }
    let control = Control {
        console: console.clone(),
        stop: stop.clone(),
    };
    done(load(server, &settings, &control).await, names_import)
}

/// The fields of a load that ended before it began: whoever reads them finds them all.
pub fn nothing(settings: &PartialSettings) -> Map<String, Value> {
    let nothing = Summary {
        table: settings.table.clone().unwrap_or_default(),
        mode: settings.mode.unwrap_or_default().name(),
        balanced: true,
        ..Summary::default()
    };
    match json!(nothing) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn done(outcome: LoadEnd, names_import: bool) -> Done {
    let Some(summary) = outcome.summary else {
        return match outcome.error {
            Some(error) => Done::failed(&error),
            None => Done::new(String::new(), json!({})),
        };
    };
    let mut done = Done::new(format!("{summary}\n"), json!(summary));
    if let Some(error) = &outcome.error {
        done.notice = stopped(&summary, error, names_import);
    }
    done.exit_with(&summary, outcome.error, outcome.leftover_rejects);
    done
}

impl Done {
    /// The exit code of a load that ended with `error` or without, and put rows aside or not.
    pub(super) fn exit_with(
        &mut self,
        summary: &Summary,
        error: Option<Error>,
        leftover_rejects: u64,
    ) {
        if let Some(error) = error.or_else(|| unbalanced(summary)) {
            self.exit = error.exit();
            self.error = Some(error.chain());
        } else if summary.rows.incomplete() || leftover_rejects > 0 {
            self.exit = Exit::Rejected;
        }
    }
}

fn unbalanced(summary: &Summary) -> Option<Error> {
    (!summary.balanced).then(|| Error::Unbalanced(format!("{:?}", summary.rows)))
}

/// What is in the table after a load that did not end well, and how to go on.
fn stopped(summary: &Summary, error: &Error, names_import: bool) -> Option<String> {
    let tally = summary.rows.tally;
    if matches!(error, Error::Guard { .. }) && tally[Outcome::Staged] > 0 {
        // Nothing of it is kept.
        return None;
    }
    let mut text = match summary.sends_nothing {
        true => format!(
            "{} rows were read and encoded, none was sent",
            tally.passed()
        ),
        false if tally[Outcome::Staged] > 0 => format!(
            "{} rows are staged, none of them is in the table yet",
            tally[Outcome::Staged]
        ),
        false => format!(
            "{} rows of this run are committed and stay in the table",
            tally.loaded()
        ),
    };
    if let Some(import_id) = &summary.import_id {
        let arguments = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        let command = resume_command(arguments, names_import.then_some(import_id));
        text.push_str(&format!("; to go on: {command}"));
    }
    Some(text)
}
