//! The tables of a job file: which there are, what keys each takes, and what is found in a file.

use clap::Args;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::section::{Pair, Reader, Section, in_order};
use crate::job::{ConnectionArgs, PartialSettings, SettingsError, Time};
use crate::target::nearest;

/// Keys at the top of the file.
#[derive(Debug, Args)]
pub struct TopKeys {
    /// Whether the loads behind a failed one run all the same [default: off]
    #[arg(long)]
    pub keep_going: bool,
}

/// Keys of a `[[load]]`.
#[derive(Debug, Args)]
pub struct LoadKeys {
    /// Name of the load: what --only chooses, and its job, if it does not name another one
    #[arg(long, value_name = "NAME", required = true)]
    pub name: String,
    /// Whether the load is passed over if none of its inputs is there [default: off]
    #[arg(long)]
    pub optional: bool,
    #[command(flatten)]
    pub settings: PartialSettings,
}

/// Keys of a hook.
#[derive(Debug, Args)]
pub struct HookKeys {
    /// Program and arguments; the summary of the run comes to its stdin
    #[arg(long, value_name = "WORD", required = true)]
    pub run: Vec<String>,
    /// Longest time it may take; then it is killed [default: 1m]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Time>,
}

pub const CONNECTION: &str = "[connection]";
pub const DEFAULTS: &str = "[defaults]";
pub const LOAD: &str = "[[load]]";
pub const ON_FAILURE: &str = "[on_failure]";
pub const ON_SUCCESS: &str = "[on_success]";
pub const TOP: &str = "the top level";

/// The tables of the file, with the keys that each takes.
fn tables() -> [(&'static str, Vec<String>); 5] {
    [
        (CONNECTION, keys::names::<ConnectionArgs>()),
        (DEFAULTS, keys::names::<PartialSettings>()),
        (LOAD, keys::names::<LoadKeys>()),
        (ON_FAILURE, keys::names::<HookKeys>()),
        (ON_SUCCESS, keys::names::<HookKeys>()),
    ]
}

/// The key at the top level that stands for a table.
pub fn name_of(header: &str) -> &str {
    header.trim_matches(['[', ']'])
}

/// Advice for a key that is none of `known`.
pub fn did_you_mean(key: &str, known: &[String], otherwise: &str) -> String {
    match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean \"{}\"?", known[near]),
        None => otherwise.to_string(),
    }
}

/// Advice for a key that stands where only `known` may: it belongs elsewhere, or means one of them.
fn advice(key: &str, known: &[String]) -> String {
    let top = (
        "the top level, before the first table",
        keys::names::<TopKeys>(),
    );
    let tables = [top].into_iter().chain(tables());
    let homes = tables.filter(|(_, keys)| keys.iter().any(|known| known == key));
    let homes: Vec<&str> = homes.map(|(header, _)| header).collect();
    match homes.is_empty() {
        false => format!("it belongs into {}", homes.join(" or ")),
        true => did_you_mean(key, known, "pgrung run --schema tells those there are"),
    }
}

/// The tables of a file, as they are found.
#[derive(Default)]
pub struct Found {
    pub top: Section,
    pub connection: Section,
    pub defaults: Section,
    pub loads: Vec<Section>,
    pub on_failure: Option<Section>,
    pub on_success: Option<Section>,
}

impl Reader<'_> {
    /// The tables of the file.
    pub fn found(&self, top: &DeTable<'_>) -> Result<Found, SettingsError> {
        let is_table = |key: &str| tables().iter().any(|(header, _)| name_of(header) == key);
        let (tables, keys): (Vec<Pair<'_, '_>>, Vec<_>) = in_order(top)
            .into_iter()
            .partition(|(key, _)| is_table(key.get_ref()));
        let mut found = Found {
            top: self.section::<TopKeys>(TOP, 0, &keys, top_advice)?,
            ..Found::default()
        };
        for (key, value) in tables {
            match key.get_ref().as_ref() {
                "connection" => {
                    found.connection = self.table::<ConnectionArgs>(CONNECTION, value)?
                }
                "defaults" => found.defaults = self.table::<PartialSettings>(DEFAULTS, value)?,
                "on_failure" => found.on_failure = Some(self.table::<HookKeys>(ON_FAILURE, value)?),
                "on_success" => found.on_success = Some(self.table::<HookKeys>(ON_SUCCESS, value)?),
                _ => match value.get_ref() {
                    DeValue::Array(loads) => {
                        let loads = loads.iter().map(|load| self.table::<LoadKeys>(LOAD, load));
                        found.loads = loads.collect::<Result<_, _>>()?;
                    }
                    _ => return Err(self.no_table(LOAD, value)),
                },
            }
        }
        Ok(found)
    }

    fn table<T: Args>(
        &self,
        header: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Section, SettingsError> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.no_table(header, value));
        };
        let title = match table.get("name").map(Spanned::get_ref) {
            Some(DeValue::String(name)) if header == LOAD => format!("{header} \"{name}\""),
            _ => header.to_string(),
        };
        let advice = |key: &str| advice(key, &keys::names::<T>());
        self.section::<T>(&title, value.span().start, &in_order(table), advice)
    }

    fn no_table(&self, header: &str, value: &Spanned<DeValue<'_>>) -> SettingsError {
        let what = format!(
            "{} is written as {header}, with its keys below",
            name_of(header)
        );
        self.text.error(value.span().start, what)
    }
}

/// Advice for a key at the top level.
fn top_advice(key: &str) -> String {
    let headers = tables().map(|(header, _)| name_of(header).to_string());
    let known = [keys::names::<TopKeys>(), headers.to_vec()].concat();
    advice(key, &known)
}
