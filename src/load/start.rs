//! Turns a prepared load into its moving parts: parser, readers, the workers' job.

use std::sync::{Arc, Mutex};

use super::plan::{Durability, LoadPlan};
use super::prepare::Ready;
use super::readers::{First, Readers, Sources, Waiting};
use super::switches::Switches;
use super::tallies::Tallies;
use crate::connect;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::overflow::Stage;
use crate::rejects::RejectFile;
use crate::report::Console;
use crate::source::{Input, RowParser, Shared};
use crate::spill::{Identity, Spill, SpilledSource};
use crate::table::{Table, Target};
use crate::worker::{Commit, Job, OnError};

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

    /// The stage of `--overflow spill`, if that is wanted.
    ///
    /// # Errors
    /// When the directory cannot be made or written to.
    pub fn stage(
        &self,
        plan: &LoadPlan,
        tallies: &Tallies,
        console: &Console,
    ) -> Result<Option<Stage>, Error> {
        let (Some((dir, limit)), Some(ledger)) = (&plan.spill, &self.ledger) else {
            return Ok(None);
        };
        let numbers = ledger.sources.iter().map(|number| Some(*number));
        let identity = Identity {
            import_id: ledger.import_id.clone(),
            table: self.target.table.clone(),
            sources: self
                .inputs
                .iter()
                .zip(numbers)
                .map(|(input, ledger_source)| SpilledSource {
                    name: input.name().to_string(),
                    ledger_source,
                })
                .collect(),
            reading: self.first.reading(self.header.is_some()),
        };
        // Where commits need not wait for the disk, neither need batches.
        let sync = !matches!(plan.durability, Durability::Off | Durability::End);
        let spill = Spill::create(dir, *limit, identity)?.sync_segments(sync);
        Ok(Some(Stage::new(
            spill,
            tallies.counters.clone(),
            console.clone(),
        )))
    }

    /// Where the rows go.
    pub fn destination(&self) -> Destination {
        Destination {
            table: self.table.clone(),
            target: self.target.clone(),
            connections: self.connections.clone(),
            ledger: self.ledger.clone(),
            names: self.inputs.iter().map(Input::name).collect(),
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
            all_or_nothing: plan.commit == Commit::Load,
        };
        Readers::start(count, self.first, sources)
    }
}

/// Where rows go.
pub struct Destination {
    /// The table.
    pub table: Table,
    /// What is written of it.
    pub target: Arc<Target>,
    /// Connections for the workers.
    pub connections: connect::Pool,
    /// Where commits are noted.
    pub ledger: Option<Ledger>,
    /// Names of the sources.
    pub names: Vec<Arc<str>>,
}

impl Destination {
    /// What the workers share.
    pub fn job(
        &self,
        plan: &LoadPlan,
        reject_file: Option<Mutex<RejectFile>>,
        stage: Option<Stage>,
        tallies: &Tallies,
        switches: &Switches,
        console: &Console,
    ) -> Job {
        Job {
            pool: self.connections.clone(),
            begin: plan.begin(),
            alike: Mutex::default(),
            deferrable: self.table.deferrable,
            can_copy: !self.table.row_security,
            suppresses: self.table.suppresses,
            volatile: self.table.unlogged || plan.durability == Durability::End,
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
            stage,
            window: plan.window,
            patience: plan.patience,
            backends: Arc::default(),
            sources: self.names.clone(),
            counters: tallies.counters.clone(),
            latency: tallies.latency.clone(),
            wait: tallies.wait.clone(),
            stop: switches.halt.clone(),
            console: console.clone(),
        }
    }
}
