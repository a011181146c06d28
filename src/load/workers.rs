//! The workers of a load, and what they share.

use std::sync::{Arc, Mutex};

use crate::connect::Pool;

use super::control::Control;
use super::running::Running;
use crate::job::LoadSettings;
use crate::ledger::{Lease, Ledger};
use crate::merge::Merge;
use crate::reject_file::RejectFile;
use crate::stop::Stop;
use crate::target::{Table, Target};
use crate::worker::{Doubts, Head, Job, OnError};

pub struct Destination {
    pub table: Table,
    /// What is written of it.
    pub target: Arc<Target>,
    /// How each batch is merged into the table, if that is so.
    pub merge: Option<Arc<Merge>>,
    /// Connections for the workers.
    pub pool: Pool,
    /// Where commits are noted.
    pub ledger: Option<Ledger>,
    /// What must be ours at each commit, if rows are not staged.
    pub lease: Option<Lease>,
    /// Where bad rows go without a ledger.
    pub reject_file: Option<RejectFile>,
    /// Whether nothing of the sources is committed yet.
    pub fresh: bool,
    /// Names of the sources.
    pub names: Vec<Arc<str>>,
}

impl Destination {
    /// What the workers share.
    pub fn job(
        self,
        settings: &LoadSettings,
        running: &Running,
        stop: &Arc<Stop>,
        control: &Control,
    ) -> Job {
        Job {
            pool: self.pool,
            begin: self.target.begin(&match settings.merges_batches() {
                true => format!("{}; {}", settings.begin(), Merge::BATCHWISE),
                false => settings.begin(),
            }),
            doubts: Doubts::default(),
            // Merged rows are tried in their order only: one that comes late would win.
            rows_need_each_other: self.table.rows_need_each_other && self.merge.is_none(),
            head: if self.fresh && settings.on_error == OnError::Reject(None) {
                Head::default()
            } else {
                Head::passed()
            },
            deferrable: self.table.deferrable,
            can_copy: !self.table.row_security || self.target.landing.is_some(),
            suppresses: self.table.suppresses,
            volatile: self.table.unlogged || running.durable_at_end,
            target: self.target,
            merge: self.merge,
            strategy: settings.strategy_factory(),
            commit: settings.commit,
            on_error: match settings.on_error {
                // Nowhere to put them aside.
                OnError::Reject(_) if self.ledger.is_none() && self.reject_file.is_none() => {
                    OnError::Stop
                }
                on_error => on_error,
            },
            ledger: self.ledger,
            lease: self.lease,
            reject_file: self.reject_file.map(Mutex::new),
            spilling: running.spilling.clone(),
            window: settings.window(),
            limits: settings.retries,
            backends: running.backends.clone(),
            sources: self.names,
            counters: running.counters.clone(),
            stop: stop.clone(),
            console: control.console.clone(),
        }
    }
}
