//! Turns a prepared load into its moving parts: parser, readers, the workers' job.

use std::sync::{Arc, Mutex};

use super::plan::LoadPlan;
use super::prepare::Ready;
use super::readers::{First, Readers, Sources, Waiting};
use super::switches::Switches;
use super::tallies::Tallies;
use crate::error::Error;
use crate::rejects::RejectFile;
use crate::report::Console;
use crate::source::{Input, RowParser, Shared};
use crate::worker::{Job, OnError};

impl Ready {
    /// A parser of the sources' records.
    pub fn parser(&mut self) -> RowParser {
        self.first.parser(&self.target.json_columns())
    }

    /// The header line of a file of rejects: that of the source.
    pub fn reject_header(&self) -> Vec<u8> {
        match &self.header {
            Some(names) => self.first.header_line(names),
            None => Vec::new(),
        }
    }

    /// Without a ledger, bad rows go straight to a file, if one is named.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn reject_file(
        &self,
        plan: &LoadPlan,
        header: &[u8],
    ) -> Result<Option<Mutex<RejectFile>>, Error> {
        let Some(path) = plan.rejects.as_ref().filter(|_| self.ledger.is_none()) else {
            return Ok(None);
        };
        match RejectFile::create(path, header.to_vec()) {
            Ok(file) => Ok(Some(Mutex::new(file))),
            Err(source) => Err(Error::Output {
                name: path.display().to_string(),
                source,
            }),
        }
    }

    /// Number of readers: with `--limit` the order of the sources matters, so it is one.
    pub fn readers(&self, plan: &LoadPlan) -> usize {
        match plan.read.limit {
            Some(_) => 1,
            None => plan.workers.min(self.inputs.len()).max(1),
        }
    }

    /// What the workers share.
    pub fn job(
        &self,
        plan: &LoadPlan,
        reject_file: Option<Mutex<RejectFile>>,
        tallies: &Tallies,
        switches: &Switches,
        console: &Console,
    ) -> Job {
        Job {
            pool: self.connections.clone(),
            begin: plan.begin(),
            deferrable: self.table.deferrable,
            can_copy: !self.table.row_security,
            suppresses: self.table.suppresses,
            target: self.target.clone(),
            strategy: plan.strategy,
            copy_format: plan.copy_format,
            commit: plan.commit,
            on_error: match plan.on_error {
                // Nowhere to put them aside.
                OnError::Reject(_) if self.ledger.is_none() && reject_file.is_none() => {
                    OnError::Stop
                }
                on_error => on_error,
            },
            ledger: self.ledger.clone(),
            reject_file,
            window: plan.window,
            patience: plan.patience,
            backends: Arc::default(),
            sources: self.inputs.iter().map(Input::name).collect(),
            counters: tallies.counters.clone(),
            latency: tallies.latency.clone(),
            wait: tallies.wait.clone(),
            stop: switches.halt.clone(),
            console: console.clone(),
        }
    }

    /// Starts `count` readers; none if nothing is left to read.
    pub fn start_readers(mut self, plan: &LoadPlan, count: usize, shared: Shared) -> Readers {
        if self.finished {
            for span in self.known.iter().flatten() {
                shared.counters.known(span);
            }
            return Readers::none();
        }
        self.first.skip(std::mem::take(&mut self.known[0]));
        let waiting = self.inputs.into_iter().zip(self.known).enumerate().skip(1);
        let sources = Sources {
            waiting: Mutex::new(
                waiting
                    .map(|(index, (input, known))| Waiting {
                        index,
                        input,
                        known,
                    })
                    .collect(),
            ),
            first: First {
                name: self.first.name().clone(),
                format: self.first.format(),
                header: self.header,
                columns: self.target.columns.len(),
            },
            options: plan.read.clone(),
            taken: self.taken,
            shared,
        };
        Readers::start(count, self.first, sources)
    }
}
