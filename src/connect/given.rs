//! Answers what was said about one parameter: by the connection string, else by the environment.

use super::dsn::{self, Parameters};
use super::error::ConnectError;

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Everything said about the connection.
pub(super) struct Given<'a> {
    parameters: Parameters,
    /// `--dsn` or `DATABASE_URL`, for errors.
    dsn_name: &'static str,
    env: Environment<'a>,
}

/// A value and who gave it.
pub(super) struct Value {
    pub(super) text: String,
    /// ``PGPORT`` or `` `port` in --dsn``: the start of an error message.
    pub(super) origin: String,
}

/// A comma-separated value; no items if nothing was said.
pub(super) struct List {
    pub(super) items: Vec<String>,
    pub(super) origin: String,
}

/// Variables that say where to connect. `PGUSER`, `PGPASSWORD` and the like say
/// only how, so they do not name a connection.
const NAMING: [&str; 6] = [
    "DATABASE_URL",
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGSERVICE",
];

/// Variables of libpq that ask for a protection we do not give: ignored, they would weaken it.
const UNSUPPORTED: [&str; 7] = [
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGREQUIRESSL",
    "PGSSLCERTMODE",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLMAXPROTOCOLVERSION",
];

/// Whether anything says where to connect; see [`NAMING`]. Empty variables say nothing.
pub(super) fn names_a_connection(dsn: Option<&str>, env: Environment<'_>) -> bool {
    dsn.is_some() || NAMING.iter().any(|name| variable(env, name).is_some())
}

fn variable(env: Environment<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}

impl<'a> Given<'a> {
    /// Reads `--dsn`, else `DATABASE_URL`; neither is no fault, an empty `--dsn` is one.
    pub(super) fn new(dsn: Option<&str>, env: Environment<'a>) -> Result<Self, ConnectError> {
        if let Some(name) = UNSUPPORTED.iter().find(|n| variable(env, n).is_some()) {
            return Err(ConnectError::Settings(format!(
                "{name} is set, but not supported; unset it"
            )));
        }
        let (dsn_name, text) = match dsn {
            Some(text) if text.trim().is_empty() => {
                return Err(ConnectError::Settings(
                    "--dsn is empty; leave it out to use the environment".to_owned(),
                ));
            }
            Some(text) => ("--dsn", Some(text.to_owned())),
            None => ("DATABASE_URL", variable(env, "DATABASE_URL")),
        };
        let parameters = match text {
            Some(text) => dsn::parse(text.trim(), dsn_name)?,
            None => Parameters::new(),
        };
        Ok(Self {
            parameters,
            dsn_name,
            env,
        })
    }

    /// Whether the connection string has a value for this.
    pub(super) fn in_dsn(&self, key: &str) -> bool {
        self.parameters.get(key).is_some_and(|v| !v.is_empty())
    }

    /// The connection string's value, else the variable's. As in libpq an empty value
    /// in the string means the default, whatever the environment says.
    pub(super) fn get(&self, key: &str, variable_name: &str) -> Option<Value> {
        let (text, origin) = match self.parameters.get(key) {
            Some(text) => (text.clone(), format!("`{key}` in {}", self.dsn_name)),
            None => (self.variable(variable_name)?, variable_name.to_owned()),
        };
        (!text.is_empty()).then_some(Value { text, origin })
    }

    /// Only the text of [`Given::get`].
    pub(super) fn text(&self, key: &str, variable_name: &str) -> Option<String> {
        self.get(key, variable_name).map(|value| value.text)
    }

    /// A value split at its commas.
    pub(super) fn list(&self, key: &str, variable_name: &str) -> List {
        match self.get(key, variable_name) {
            Some(value) => List {
                items: value.text.split(',').map(str::to_owned).collect(),
                origin: value.origin,
            },
            None => List {
                items: Vec::new(),
                origin: key.to_owned(),
            },
        }
    }

    /// A whole number, may be negative.
    pub(super) fn number(
        &self,
        key: &str,
        variable_name: &str,
    ) -> Result<Option<i64>, ConnectError> {
        self.get(key, variable_name)
            .map(|value| {
                value.text.trim().parse().map_err(|_| {
                    ConnectError::Settings(format!("{} must be a whole number", value.origin))
                })
            })
            .transpose()
    }

    /// One of the listed words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        variable_name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ConnectError> {
        let Some(value) = self.get(key, variable_name) else {
            return Ok(None);
        };
        match choices.iter().find(|(word, _)| *word == value.text) {
            Some((_, chosen)) => Ok(Some(*chosen)),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(ConnectError::Settings(format!(
                    "{} must be one of {}",
                    value.origin,
                    words.join(", ")
                )))
            }
        }
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        variable(self.env, name)
    }
}
