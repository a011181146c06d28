//! How a command ended, for people, for machines and for the shell.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::exit_code::Exit;
use crate::job::SettingsError;
use crate::report::Console;

/// A command that has ended.
pub struct Done {
    /// What the shell hears.
    pub exit: Exit,
    /// What people read on stdout.
    pub text: String,
    /// What machines read: the fields of `--summary` that are this command's own.
    pub fields: Map<String, Value>,
    /// What else people should know, on stderr.
    pub notice: Option<String>,
    /// What ended it early.
    pub error: Option<String>,
}

impl Done {
    /// It did what was asked for.
    pub fn new(text: String, fields: Value) -> Self {
        Done {
            exit: Exit::Loaded,
            text,
            fields: match fields {
                Value::Object(fields) => fields,
                _ => Map::new(),
            },
            notice: None,
            error: None,
        }
    }

    /// It ended before there was anything to tell.
    pub fn failed(error: &Error) -> Self {
        Done {
            exit: error.exit(),
            error: Some(error.chain()),
            ..Done::new(String::new(), Value::Null)
        }
    }

    /// Takes in a failure to tell how it ended; its own failure is the one that decides.
    pub fn or_failed(&mut self, told: Result<(), Error>, console: &Console) {
        let Err(error) = told else { return };
        if self.error.is_some() {
            console.error(&error.chain());
        } else {
            self.exit = error.exit();
            self.error = Some(error.chain());
        }
    }

    /// The account of the run: what is the same for all commands, then the command's own fields.
    pub fn account(&self, command: &str, started: SystemTime) -> Value {
        let mut account = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "command": command,
            "started_at": format_rfc3339_millis(started).to_string(),
            "finished_at": format_rfc3339_millis(SystemTime::now()).to_string(),
            "exit_code": self.exit.code(),
            "error": self.error,
        });
        if let Some(account) = account.as_object_mut() {
            account.extend(self.fields.clone());
        }
        account
    }
}

/// The file of `--summary`.
pub struct SummaryFile {
    file: File,
    path: PathBuf,
}

impl SummaryFile {
    /// Makes the file anew.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self, SettingsError> {
        match File::create(path) {
            Ok(file) => Ok(SummaryFile {
                file,
                path: path.to_path_buf(),
            }),
            Err(error) => Err(SettingsError(format!(
                "--summary {}: {error}",
                path.display()
            ))),
        }
    }

    /// Writes the account.
    pub fn write(mut self, account: &Value) -> Result<(), Error> {
        let written = serde_json::to_writer_pretty(&mut self.file, account)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|source| Error::Output {
            name: self.path.display().to_string(),
            source,
        })
    }
}
