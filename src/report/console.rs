//! Writes notices to stderr without tearing the progress bar apart.

use std::io::Write;
use std::sync::{Arc, Mutex};

use indicatif::ProgressBar;

use crate::server_error::one_line;

/// Where notices go. Clones write to the same place.
#[derive(Debug, Clone, Default)]
pub struct Console {
    quiet: bool,
    verbose: bool,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Console {
    /// `quiet`: errors only. `verbose`: details too.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        Console {
            quiet,
            verbose,
            bar: Arc::default(),
        }
    }

    /// Whether details are wanted.
    pub fn is_verbose(&self) -> bool {
        self.verbose && !self.quiet
    }

    /// Something worth knowing that did not stop the load.
    pub fn notice(&self, text: &str) {
        if !self.quiet {
            self.write(text);
        }
    }

    /// Something only the curious want.
    pub fn detail(&self, text: &str) {
        if self.is_verbose() {
            self.write(text);
        }
    }

    /// What ended the run.
    pub fn error(&self, text: &str) {
        self.write(&format!("error: {text}"));
    }

    /// Draws `bar` below the notices from now on; `None`: no more.
    pub fn set_bar(&self, bar: Option<ProgressBar>) {
        if let Ok(mut slot) = self.bar.lock() {
            *slot = bar;
        }
    }

    fn write(&self, text: &str) {
        let line = format!("pgrung: {}", one_line(text));
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
