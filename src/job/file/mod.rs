//! A job file: the loads of a night in TOML. Its keys are the long flags of `pgrung load`, with
//! underscores; what `[defaults]` says holds for every load that says nothing else of that key.
//!
//! The whole file is checked when it is read, but for what only the night can tell: whether the
//! inputs are there. Paths are meant from the directory of the file.

mod environment;
mod keys;
mod schema;
mod section;
mod tables;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use self::section::{Reader, Section};
use self::tables::{
    Found, HookKeys, LOAD, LoadKeys, ON_FAILURE, ON_SUCCESS, TopKeys, did_you_mean,
};
use self::text::Text;
use super::inputs::inputs;
use super::{ConnectionArgs, LoadSettings, PartialSettings, SettingsError, Time};
use crate::source::Input;

pub use self::environment::Environment;
pub use self::schema::schema;

/// Long enough for a mail server that is slow, short enough for the night to end.
const DEFAULT_TIMEOUT: Time = Time(Duration::from_secs(60));

/// A job file as meant.
#[derive(Debug)]
pub struct JobFile {
    /// The directory from which paths in it are meant.
    pub dir: PathBuf,
    /// Where the server is.
    pub connection: ConnectionArgs,
    connection_section: Section,
    connection_place: String,
    /// Whether the loads behind a failed one run all the same.
    pub keep_going: bool,
    /// At least one, each with a name of its own.
    pub loads: Vec<JobLoad>,
    /// What is run when a load has failed.
    pub on_failure: Option<Hook>,
    /// What is run when none has.
    pub on_success: Option<Hook>,
}

/// One load of a job file.
#[derive(Debug, Clone)]
pub struct JobLoad {
    pub name: String,
    optional: bool,
    partial: PartialSettings,
    section: Section,
    /// Where the load begins.
    place: String,
    /// Where its inputs stand.
    input_place: String,
}

/// A program that is told how the night was.
#[derive(Debug, Clone)]
pub struct Hook {
    /// The table that names it.
    pub name: &'static str,
    /// The program and its arguments; at least one.
    pub run: Vec<String>,
    /// Longest time it may take.
    pub timeout: Duration,
}

impl Reader<'_> {
    /// What the tables mean.
    fn job(&self, found: &Found) -> Result<JobFile, SettingsError> {
        let TopKeys { keep_going } = self.parsed(&found.top)?;
        let connection = self.parsed(&found.connection)?;
        // By themselves too: what every load has its own of is to make sense all the same.
        let alone =
            keys::command::<PartialSettings>().mut_arg("table", |flag| flag.required(false));
        self.parsed_by::<PartialSettings>(alone, &found.defaults)?;
        if found.loads.is_empty() {
            let what = format!("there is no {LOAD}; write one for each table to load");
            return Err(self.text.error(0, what));
        }
        let hook = |name, section: &Option<Section>| {
            let hook = section.as_ref().map(|section| self.hook(name, section));
            hook.transpose()
        };
        let loads = found
            .loads
            .iter()
            .map(|load| self.load(load, &found.defaults));
        Ok(JobFile {
            dir: self.dir.to_path_buf(),
            connection,
            connection_place: self.text.place(found.connection.at),
            connection_section: found.connection.clone(),
            keep_going,
            loads: loads.collect::<Result<_, _>>()?,
            on_failure: hook(ON_FAILURE, &found.on_failure)?,
            on_success: hook(ON_SUCCESS, &found.on_success)?,
        })
    }

    fn load(&self, section: &Section, defaults: &Section) -> Result<JobLoad, SettingsError> {
        let place = self.text.place(section.at);
        let section = section.clone().or(defaults);
        // stdin only where it is named: at night nobody sits there.
        let command = keys::command::<LoadKeys>().mut_arg("inputs", |flag| flag.required(true));
        let keys: LoadKeys = self.parsed_by(command, &section)?;
        let (name, mut partial) = (keys.name, keys.settings);
        if name.is_empty() || name.chars().any(char::is_control) {
            let what = "name: a load needs a name without control characters";
            return Err(self.text.error(section.at("name"), what));
        }
        if !partial.no_ledger {
            partial.job.get_or_insert_with(|| name.clone());
        }
        Ok(JobLoad {
            name,
            optional: keys.optional,
            partial,
            place,
            input_place: self.text.place(section.at("input")),
            section,
        })
    }

    fn hook(&self, name: &'static str, section: &Section) -> Result<Hook, SettingsError> {
        let HookKeys { mut run, timeout } = self.parsed(section)?;
        let Time(timeout) = timeout.unwrap_or(DEFAULT_TIMEOUT);
        // A name alone is looked for as a shell does.
        if let Some(program) = run.first_mut().filter(|program| program.contains('/')) {
            *program = self.dir.join(&program).to_string_lossy().into_owned();
        }
        Ok(Hook { name, run, timeout })
    }
}

impl JobFile {
    /// What a job file holds, as the end of a help text.
    pub const HELP: &'static str = "\
Job file (TOML):
  keep_going = true  At the top: the loads behind a failed one run all the same; else they do not.
                     Exit codes 0 and 3 are no failure.
  [connection]       dsn, dsn_file or embedded; without it the environment names the server.
  [defaults]         Keys of loads, for every load that says nothing else of that key.
  [[load]]           name, and the long flags of pgrung load with underscores: batch_rows = \"10k\".
                     input: files or globs, \"-\" for stdin. job: the load's name, unless given.
                     optional = true: passed over if none of its inputs is there.
  [on_failure]       run = [\"PROGRAM\", \"ARGUMENT\", ...] when a load has failed or Ctrl-C has come:
                     gets the summary on stdin, its output goes to stderr, after timeout (1m) it is
                     killed. Where it fails a run that was good is exit 1.
  [on_success]       The same when no load has failed.
  Paths are meant from the directory of the file, and programs run there. ${NAME} and
  ${NAME:-default} in strings are variables of the environment; $${ is a ${ that is none. The whole
  file is checked before the first load begins; one that is refused runs nothing (exit 2).";

    /// Reads and checks the file.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its place.
    pub fn read(path: &Path, environment: Environment<'_>) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| SettingsError(format!("job file {}: {error}", path.display())))?;
        let reader = Reader {
            text: Text::new(path, &text),
            dir: path.parent().unwrap_or(Path::new("")),
            environment,
        };
        let table = DeTable::parse(&text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let at = span.start;
            match error.message() {
                "duplicate key" => {
                    let key = reader.text.typed(span);
                    reader
                        .text
                        .error(at, format!("{key} is there twice; leave one out"))
                }
                // No more than the message: a value may be a secret.
                message => reader.text.error(at, message),
            }
        })?;
        let job = reader.job(&reader.found(table.get_ref())?)?;
        job.check(&reader)?;
        Ok(job)
    }

    /// The loads that `only` names, in the order of the file; all of them if it names none.
    ///
    /// # Errors
    /// A name that no load has.
    pub fn chosen(&self, only: &[String]) -> Result<Vec<&JobLoad>, SettingsError> {
        let names: Vec<String> = self.loads.iter().map(|load| load.name.clone()).collect();
        if let Some(unknown) = only.iter().find(|name| !names.contains(name)) {
            let otherwise = format!("there are {}", names.join(", "));
            let advice = did_you_mean(unknown, &names, &otherwise);
            return Err(SettingsError(format!(
                "--only {unknown}: there is no such load; {advice}"
            )));
        }
        let is_chosen = |load: &&JobLoad| only.is_empty() || only.contains(&load.name);
        Ok(self.loads.iter().filter(is_chosen).collect())
    }

    /// What is wrong with the connection, at its place; if the file has none, it is the environment's.
    pub fn wrong_connection(&self, message: String) -> SettingsError {
        let error = SettingsError(message);
        match &self.connection_section.title {
            title if title.is_empty() => error,
            _ => (self.connection_section).located(&error, &self.connection_place),
        }
    }

    /// What the settings of the loads contradict, in themselves and among one another.
    fn check(&self, reader: &Reader<'_>) -> Result<(), SettingsError> {
        for (place, load) in self.loads.iter().enumerate() {
            load.check()?;
            for other in &self.loads[..place] {
                let clash = |key: &str, what: String| {
                    let what = format!("{}: {what}", load.section.title);
                    Err(reader.text.error(load.section.at(key), what))
                };
                let title = &other.section.title;
                let rejects = |load: &JobLoad| load.partial.rejects.clone();
                let stdin = |load: &JobLoad| load.partial.inputs.iter().any(|input| input == "-");
                if load.name == other.name {
                    return clash("name", "another load has this name; rename one".to_string());
                }
                if rejects(load).is_some() && rejects(load) == rejects(other) {
                    let what =
                        format!("rejects would write over those of {title}; name another file");
                    return clash("rejects", what);
                }
                if stdin(load) && stdin(other) {
                    return clash(
                        "input",
                        format!("stdin is read by {title} already; name a file"),
                    );
                }
            }
        }
        Ok(())
    }
}

impl JobLoad {
    /// The settings, with the inputs that are there now.
    ///
    /// # Errors
    /// What cannot be, with its place.
    pub fn settings(&self) -> Result<LoadSettings, SettingsError> {
        let settings = self.partial.clone().complete();
        let checked = settings.and_then(|settings| settings.check().map(|()| settings));
        checked.map_err(|error| self.section.located(&error, &self.input_place))
    }

    /// Whether it is to be passed over: it may be, and none of its inputs is there.
    pub fn is_passed_over(&self) -> bool {
        let there = |input: &Input| match input {
            Input::File(path) => path.exists(),
            _ => true,
        };
        self.optional && !self.inputs().iter().any(there)
    }

    /// The inputs as far as they are there.
    pub fn inputs(&self) -> Vec<Input> {
        let each = self.partial.inputs.iter();
        let found = each.filter_map(|typed| inputs(std::slice::from_ref(typed)).ok());
        found.flatten().collect()
    }

    /// `text` without any value of the environment that the load has.
    pub fn hidden(&self, text: &str) -> String {
        self.section.hidden(text)
    }

    /// The settings that it says.
    pub fn partial(&self) -> &PartialSettings {
        &self.partial
    }

    /// Checks all but the inputs.
    fn check(&self) -> Result<(), SettingsError> {
        // Only stdin is known to be there.
        let input = |typed: &String| match typed.as_str() {
            "-" => "-".to_string(),
            _ => "file".to_string(),
        };
        let partial = PartialSettings {
            inputs: self.partial.inputs.iter().map(input).collect(),
            ..self.partial.clone()
        };
        let settings = partial.complete();
        let checked = settings.and_then(|settings| settings.check());
        checked.map_err(|error| self.section.located(&error, &self.place))
    }
}
