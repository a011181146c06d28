//! Writes notices to stderr without tearing the progress bar apart.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use indicatif::ProgressBar;
use serde_json::json;

use crate::server_error::{harmless, one_line};

/// How notices are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line: time, level, message.
    Json,
}

/// Where notices go. Clones write to the same place.
#[derive(Debug, Clone, Default)]
pub struct Console {
    quiet: bool,
    verbose: bool,
    format: LogFormat,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Console {
    /// `quiet`: errors only. `verbose`: details too.
    pub fn new(quiet: bool, verbose: bool, format: LogFormat) -> Self {
        Console {
            quiet,
            verbose,
            format,
            bar: Arc::default(),
        }
    }

    /// Whether only errors are wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// How notices are written.
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Whether details are wanted.
    pub fn is_verbose(&self) -> bool {
        self.verbose && !self.quiet
    }

    /// Something worth knowing that did not stop the load.
    pub fn notice(&self, text: &str) {
        if !self.quiet {
            self.write("notice", text);
        }
    }

    /// Something only the curious want.
    pub fn detail(&self, text: &str) {
        if self.is_verbose() {
            self.write("detail", text);
        }
    }

    /// What ended the run.
    pub fn error(&self, text: &str) {
        self.write("error", text);
    }

    /// Draws `bar` below the notices from now on; `None`: no more.
    pub fn set_bar(&self, bar: Option<ProgressBar>) {
        if let Ok(mut slot) = self.bar.lock() {
            *slot = bar;
        }
    }

    fn write(&self, level: &str, text: &str) {
        let line = match (self.format, level) {
            (LogFormat::Json, _) => {
                let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
                let line = json!({ "time": time, "level": level, "message": text });
                harmless(&line.to_string())
            }
            (LogFormat::Text, "error") => format!("pgrung: error: {}", one_line(text)),
            (LogFormat::Text, _) => format!("pgrung: {}", one_line(text)),
        };
        // A closed stderr is no reason to stop a load.
        let print = || {
            let _ = writeln!(std::io::stderr(), "{line}");
        };
        match self.bar.lock().ok().and_then(|bar| bar.clone()) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}
