//! Answers what was said about one parameter: by the connection string, else by the service file,
//! else by the environment.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::dsn::{self, Parameters};
use super::error::ConnectError;
use super::passfile::FORBIDDEN_MODE;
use super::service::{self, Environment};

/// Everything said about the connection.
pub(super) struct Given<'a> {
    /// The connection string's, then the service's; each with its name for errors.
    stated: Vec<(Parameters, String)>,
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
        match dsn {
            Some(text) if text.trim().is_empty() => Err(ConnectError::Settings(
                "--dsn is empty; leave it out to use the environment".to_owned(),
            )),
            Some(text) => Self::of(dsn::parse(text.trim(), "--dsn")?, "--dsn", env),
            None => {
                let name = "DATABASE_URL";
                let parameters = match variable(env, name) {
                    Some(text) => dsn::parse(text.trim(), name)?,
                    None => Parameters::new(),
                };
                Self::of(parameters, name, env)
            }
        }
    }

    /// Reads the one line of `--dsn-file`. As libpq does with a password file, one with a password
    /// in it is refused if group or others have access.
    pub(super) fn of_file(path: &Path, env: Environment<'a>) -> Result<Self, ConnectError> {
        let origin = format!("--dsn-file {}", path.display());
        let fault = |what: &str| ConnectError::Settings(format!("{origin}: {what}"));
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => fault("not UTF-8"),
            _ => fault(&error.to_string()),
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        let text = text.trim();
        if text.is_empty() {
            return Err(fault(
                "the file is empty; write a connection string into it",
            ));
        }
        if text.contains(['\n', '\r']) {
            return Err(fault(
                "the file has more than one line; write the connection string in one",
            ));
        }
        let parameters = dsn::parse(text, &origin)?;
        let has_password = parameters.get("password").is_some_and(|p| !p.is_empty());
        if has_password && mode & FORBIDDEN_MODE != 0 {
            return Err(fault(
                "there is a password in it, and group or others have access; chmod 0600 it",
            ));
        }
        Self::of(parameters, &origin, env)
    }

    /// Adds what the service says, if one is named.
    fn of(
        parameters: Parameters,
        dsn_name: &str,
        env: Environment<'a>,
    ) -> Result<Self, ConnectError> {
        if let Some(name) = UNSUPPORTED.iter().find(|n| variable(env, n).is_some()) {
            return Err(ConnectError::Settings(format!(
                "{name} is set, but not supported; unset it"
            )));
        }
        // As in libpq: an empty name is looked for too.
        let service = match parameters.get("service") {
            Some(name) => Some((name.clone(), format!("`service` in {dsn_name}"))),
            None => env("PGSERVICE").map(|name| (name, "PGSERVICE".to_owned())),
        };
        let mut given = Self {
            stated: vec![(parameters, dsn_name.to_owned())],
            env,
        };
        if let Some((name, origin)) = service {
            let (parameters, file) = service::look_up(&name, given.home().as_deref(), env)
                .map_err(|what| ConnectError::Settings(format!("{origin}: {what}")))?;
            given
                .stated
                .push((parameters, format!("service file {}", file.display())));
        }
        Ok(given)
    }

    /// The value and where it stands, also if it is empty.
    fn stated(&self, key: &str) -> Option<(&str, &str)> {
        let mut found = self.stated.iter();
        found
            .find_map(|(parameters, origin)| Some((parameters.get(key)?.as_str(), origin.as_str())))
    }

    /// Whether the connection string or the service has a value for this.
    pub(super) fn is_stated(&self, key: &str) -> bool {
        self.stated(key).is_some_and(|(value, _)| !value.is_empty())
    }

    /// The stated value, else the variable's. As in libpq an empty value in the string or the
    /// service means the default, whatever is said below it.
    pub(super) fn get(&self, key: &str, variable_name: &str) -> Option<Value> {
        let (text, origin) = match self.stated(key) {
            Some((text, origin)) => (text.to_owned(), format!("`{key}` in {origin}")),
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

    /// `HOME`, else the system user's.
    pub(super) fn home(&self) -> Option<PathBuf> {
        let account = || User::from_uid(geteuid()).ok().flatten();
        self.variable("HOME")
            .map(PathBuf::from)
            .or_else(|| account().map(|account| account.dir))
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        variable(self.env, name)
    }
}
