//! Reads a table of a job file: its keys become words of a command line, which clap checks as it
//! does those of a shell; what it says is told at the place in the file.

use std::num::ParseIntError;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Command};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::environment::{Environment, Secret, expand};
use super::keys::{self, Reference, Takes};
use super::text::Text;
use crate::job::SettingsError;

/// What reads the tables of one file.
pub struct Reader<'a> {
    pub text: Text<'a>,
    /// The directory of the file, from which paths in it are meant.
    pub dir: &'a Path,
    pub environment: Environment<'a>,
}

/// What a table says.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Its header, as in the file, or what else names it.
    pub title: String,
    /// Where it begins, as a byte of the file.
    pub at: usize,
    given: Vec<Given>,
}

/// A key and its value.
#[derive(Debug, Clone)]
struct Given {
    key: String,
    /// Where the value begins, as a byte of the file.
    at: usize,
    place: String,
    /// The value as it stands in the file.
    typed: String,
    words: Vec<String>,
    /// Whether the words are no flags.
    positional: bool,
    secrets: Vec<Secret>,
}

impl Section {
    /// These keys, and of `weaker` those that are not among them.
    pub fn or(mut self, weaker: &Section) -> Section {
        let missing = |given: &&Given| self.given(&given.key).is_none();
        let missing: Vec<Given> = weaker.given.iter().filter(missing).cloned().collect();
        self.given.extend(missing);
        self
    }

    fn given(&self, key: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.key == key)
    }

    /// Where the value of a key begins, as a byte of the file; if it has none, where the table does.
    pub fn at(&self, key: &str) -> usize {
        self.given(key).map_or(self.at, |given| given.at)
    }

    /// What is wrong with the settings, told of keys instead of flags, at the first one that is named
    /// and given, else at `place`; no value of the environment is shown.
    pub fn located(&self, error: &SettingsError, place: &str) -> SettingsError {
        let SettingsError(message) = error;
        let (mut text, mut named) = (String::new(), None);
        let mut rest = message.as_str();
        while let Some((before, flag)) = rest.split_once("--") {
            let sign = |sign: char| !sign.is_ascii_lowercase() && sign != '-';
            let (flag, behind) = flag.split_at(flag.find(sign).unwrap_or(flag.len()));
            text.push_str(before);
            // In the middle of a word it is part of a name.
            if before.is_empty() || before.ends_with([' ', '(']) {
                let key = flag.replace('-', "_");
                named = named.or_else(|| self.given(&key));
                text.push_str(&key);
            } else {
                text.push_str("--");
                text.push_str(flag);
            }
            rest = behind;
        }
        text.push_str(rest);
        let text = self.hidden(&text);
        let place = named.map_or(place, |given| &given.place);
        SettingsError(format!("{place}: {}: {text}", self.title))
    }

    /// `text` without any value of the environment that the table has.
    pub fn hidden(&self, text: &str) -> String {
        let secrets = self.given.iter().flat_map(|given| &given.secrets);
        secrets.fold(text.to_string(), |text, secret| secret.hidden(&text))
    }

    fn words(&self) -> Vec<&str> {
        let words = |positional: bool| {
            let given = self.given.iter();
            let given = given.filter(move |given| given.positional == positional);
            given.flat_map(|given| given.words.iter().map(String::as_str))
        };
        words(false).chain(["--"]).chain(words(true)).collect()
    }
}

impl Reader<'_> {
    /// Reads the table as keys that stand for flags of `T`.
    ///
    /// # Errors
    /// An unknown key, with the advice for it, a value of the wrong type, or a variable that is not there.
    pub fn section<T: Args>(
        &self,
        title: &str,
        at: usize,
        pairs: &[Pair<'_, '_>],
        advice: impl Fn(&str) -> String,
    ) -> Result<Section, SettingsError> {
        let command = keys::command::<T>();
        let flag = |key: &str| command.get_arguments().find(|flag| keys::name(flag) == key);
        let mut section = Section {
            title: title.to_string(),
            at,
            given: Vec::new(),
        };
        for (key, value) in pairs {
            let name = key.get_ref().as_ref();
            let Some(flag) = flag(name) else {
                let what = format!("unknown key \"{name}\" in {title}; {}", advice(name));
                return Err(self.text.error(key.span().start, what));
            };
            section.given.push(self.given(name, flag, value)?);
        }
        Ok(section)
    }

    fn given(
        &self,
        key: &str,
        flag: &Arg,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Given, SettingsError> {
        let at = value.span().start;
        let mut secrets = Vec::new();
        let takes = keys::takes(flag);
        let wrong = |value: &Spanned<DeValue<'_>>| {
            let found = value.get_ref().type_str();
            let article = if found.starts_with(['a', 'i']) {
                "an"
            } else {
                "a"
            };
            let what = format!("{key} takes {}, not {article} {found}", takes.words());
            self.text.error(value.span().start, what)
        };
        let mut string = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::String(text) => expand(text, self.environment, &mut secrets)
                .map(|text| self.resolved(text, keys::refers(flag)))
                .map_err(|what| {
                    self.text
                        .error(value.span().start, format!("{key}: {what}"))
                }),
            _ => Err(wrong(value)),
        };
        let word = |text: String| match flag.get_long() {
            Some(long) => format!("--{long}={text}"),
            None => text,
        };
        let switch = |on: bool| match (on, flag.get_long()) {
            (true, Some(long)) => vec![format!("--{long}")],
            _ => Vec::new(),
        };
        let words = match (takes, value.get_ref()) {
            (Takes::Switch | Takes::SwitchOrText, DeValue::Boolean(on)) => switch(*on),
            (Takes::Switch, _) => return Err(wrong(value)),
            (Takes::Texts, DeValue::Array(items)) => {
                let texts = items.iter().map(string);
                texts.map(|text| text.map(word)).collect::<Result<_, _>>()?
            }
            (Takes::Names, DeValue::Array(items)) => {
                let names = items.iter().map(string).collect::<Result<Vec<_>, _>>()?;
                // None are none: an empty list stands over that of the defaults.
                let list = (!names.is_empty()).then(|| word(csv_list(&names)));
                list.into_iter().collect()
            }
            (Takes::Number | Takes::Quantity, DeValue::Integer(number)) => {
                let digits = number.as_str();
                let number = i128::from_str_radix(digits, number.radix());
                vec![word(
                    number.map_or(digits.to_string(), |number| number.to_string()),
                )]
            }
            _ => vec![word(string(value)?)],
        };
        Ok(Given {
            key: key.to_string(),
            at,
            place: self.text.place(at),
            typed: self.text.typed(value.span()),
            words,
            positional: flag.is_positional(),
            secrets,
        })
    }

    /// A path in a string is meant from the directory of the file.
    fn resolved(&self, text: String, refers: Reference) -> String {
        let from = |dir: &Path, path: &str| dir.join(path).to_string_lossy().into_owned();
        match refers {
            // Nothing is not the directory.
            _ if text.is_empty() => text,
            Reference::Path => from(self.dir, &text),
            Reference::Input if text == "-" => text,
            Reference::Input if text.contains(['*', '?', '[']) => {
                let dir = glob::Pattern::escape(&self.dir.to_string_lossy());
                from(Path::new(&dir), &text)
            }
            Reference::Input => from(self.dir, &text),
            Reference::Sql => match text.strip_prefix('@') {
                Some(path) => format!("@{}", from(self.dir, path)),
                None => text,
            },
            Reference::None => text,
        }
    }

    /// The settings that the table says, checked as those of a command line.
    ///
    /// # Errors
    /// A value that makes no sense, a key that is missing, or two that exclude each other.
    pub fn parsed<T: Args>(&self, section: &Section) -> Result<T, SettingsError> {
        self.parsed_by(keys::command::<T>(), section)
    }

    /// [`Reader::parsed`] by a command that asks for more or less than that of `T`.
    pub fn parsed_by<T: Args>(
        &self,
        mut command: Command,
        section: &Section,
    ) -> Result<T, SettingsError> {
        let matches = command.try_get_matches_from_mut(section.words());
        matches
            .and_then(|matches| T::from_arg_matches(&matches))
            .map_err(|error| self.refused(&error, &command, section))
    }

    /// What clap says, at its place.
    fn refused(&self, error: &clap::Error, command: &Command, section: &Section) -> SettingsError {
        let flags = error.get(ContextKind::InvalidArg).into_iter();
        let flags = flags
            .chain(error.get(ContextKind::PriorArg))
            .flat_map(strings);
        let name = |shown: String| {
            let mut all = command.get_arguments();
            let flag = all.find(|flag| flag.to_string() == shown)?;
            Some(keys::name(flag))
        };
        let names: Vec<String> = flags.filter_map(name).collect();
        let Some(given) = names.first().and_then(|key| section.given(key)) else {
            let what = match error.kind() {
                ErrorKind::MissingRequiredArgument => {
                    let is = if names.len() == 1 { "is" } else { "are" };
                    format!("{} {is} missing", names.join(" and "))
                }
                _ => error.to_string(),
            };
            return self
                .text
                .error(section.at, format!("{}: {what}", section.title));
        };
        let what = match error.kind() {
            ErrorKind::ArgumentConflict => {
                format!("{} exclude each other; leave one out", names.join(" and "))
            }
            _ => format!(
                "{} = {}: {}",
                given.key,
                given.typed,
                needed(error, given, command)
            ),
        };
        self.text.error(given.at, what)
    }
}

/// What is needed in the place of a value.
fn needed(error: &clap::Error, given: &Given, command: &Command) -> String {
    let choices = error
        .get(ContextKind::ValidValue)
        .map(strings)
        .unwrap_or_default();
    let choices = match choices.is_empty() {
        true => "it must not be empty".to_string(),
        false => format!("one of {} is needed", choices.join(", ")),
    };
    let near = error
        .get(ContextKind::SuggestedValue)
        .map(strings)
        .unwrap_or_default();
    match (error.kind(), std::error::Error::source(error)) {
        (ErrorKind::InvalidValue, _) if given.secrets.is_empty() && !near.is_empty() => {
            format!("{choices}; did you mean \"{}\"?", near.concat())
        }
        (ErrorKind::InvalidValue, _) => choices,
        // What the parser says may repeat the value, or a part of it.
        (_, Some(_)) if !given.secrets.is_empty() => {
            let mut flags = command.get_arguments();
            let flag = flags.find(|flag| keys::name(flag) == given.key);
            let names = flag.and_then(Arg::get_value_names).unwrap_or_default();
            format!("what the environment says is no {}", names.concat())
        }
        (_, Some(source)) if source.is::<ParseIntError>() => "a whole number is needed".to_string(),
        (_, Some(source)) => source.to_string(),
        (_, None) => "makes no sense".to_string(),
    }
}

fn strings(value: &ContextValue) -> Vec<String> {
    match value {
        ContextValue::String(text) => vec![text.clone()],
        ContextValue::Strings(texts) => texts.clone(),
        _ => Vec::new(),
    }
}

/// Names as one CSV record, as flags have them.
fn csv_list(names: &[String]) -> String {
    let quoted = names
        .iter()
        .map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(",")
}

/// A key and its value, with their places.
pub type Pair<'t, 'i> = (&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>);

/// The keys of a table as they follow one another in the file.
pub fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<Pair<'t, 'i>> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}
