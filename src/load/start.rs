//! Turns a prepared load into its moving parts and what is looked at while they move.

use std::sync::{Arc, Mutex};

use futures::{FutureExt, TryFutureExt};

use super::control::Control;
use super::engine::{Engine, ReadTask, WriteTask};
use super::origin::Origin;
use super::prepare::Prepared;
use super::publish::Displays;
use super::readers::{Sources, Waiting, readers};
use super::running::Running;
use crate::error::Error;
use crate::job::LoadSettings;
use crate::queue::{Entrance, Overflow, Policy, Queue, SpillQueue};
use crate::report::{Counters, Way};
use crate::source::RowParser;
use crate::stop::Stops;
use crate::worker::{Commit, Worker};

impl Prepared {
    /// Of rows that point to each other, one may have to be in before another: unless the user wants
    /// more, one worker takes them in their order.
    pub fn settle_workers(&self, settings: &LoadSettings, control: &Control) -> LoadSettings {
        let mut settings = settings.clone();
        if self.destination.table.rows_need_each_other && settings.workers() > 1 {
            let table = &self.destination.target.table;
            control.console.notice(&match settings.workers {
                None => format!("a foreign key of {table} points to itself: one worker (-j) takes the rows in their order"),
                Some(_) => format!("a foreign key of {table} points to itself: rows may be refused because the rows they point to are still with another worker; -j 1 takes them in their order"),
            });
            settings.workers.get_or_insert(1);
        }
        settings
    }

    /// The moving parts, what looks at them, and the displays, which are shown at once.
    pub fn start(self, settings: &LoadSettings, control: &Control) -> (Engine, Running, Displays) {
        let counters = Counters::of(match (&self.staged, &self.before) {
            (Some(_), _) => Way::Staged,
            (None, Some(_)) => Way::Stored,
            (None, None) => Way::Discarded,
        });
        let (counters, stops) = (Arc::new(counters), Stops::default());
        let (workers, count) = (settings.workers(), self.origin.reader_count(settings));
        // One more goes between disk and workers.
        let spare = usize::from(self.spill.is_some());
        let buffers = count + settings.queue + workers;
        let queue = Queue::new(settings.queue, buffers + spare);
        control.console.detail(&format!(
            "{workers} workers (default: one a core, at most 4), {count} readers; memory for batches: {buffers} x {} bytes",
            settings.batch_bytes,
        ));
        let spilling = self.spill.map(|spill| {
            let spilling = SpillQueue::new(spill, counters.clone(), control.console.clone());
            spilling.start(&queue);
            spilling
        });
        let running = Running {
            target: match &self.staged {
                Some(staged) => staged.merge.target.clone(),
                None => self.destination.target.clone(),
            },
            before: self.before,
            staged: self.staged,
            rehearsal: self.rehearsal.map(Mutex::new),
            sources: self.destination.names.clone(),
            ledger: self.destination.ledger.clone(),
            counters: counters.clone(),
            taken: self.origin.taken.clone(),
            total: self.total,
            known_bytes: self.origin.known_bytes(),
            waiting: queue.waiting.clone(),
            spilling: spilling.clone(),
            backends: Arc::default(),
            indexes: self.indexes,
            logged: !self.destination.table.unlogged,
            durable_at_end: self.durable_at_end,
            reject_layout: self.origin.reject_layout(),
        };
        let displays = Displays::start(&running, self.listener, settings, control);

        let columns = self.destination.target.key_columns();
        let parser = RowParser::of(&self.origin.reading, columns);
        let job = Arc::new(
            self.destination
                .job(settings, &running, &stops.halt, control),
        );
        let writing = |_| -> WriteTask {
            let worker = Worker::new(job.clone(), parser.clone());
            let run = worker.run(queue.waiting.clone(), queue.give_back.clone());
            run.map_err(Error::from).boxed()
        };
        let entrance = Entrance {
            full: queue.full,
            empty: queue.empty,
            give_back: queue.give_back.downgrade(),
            policy: match (settings.overflow, spilling) {
                (_, Some(spilling)) => Policy::Spill(spilling),
                (Overflow::Drop, None) => Policy::Drop(Mutex::default()),
                (Overflow::Block | Overflow::Spill, None) => Policy::Block,
            },
            counters,
            stops: stops.clone(),
            console: control.console.clone(),
        };
        let engine = Engine {
            workers: (0..workers).map(writing).collect(),
            readers: self.origin.readers(count, entrance, settings, &running),
            waiting: queue.waiting,
            stops,
            // What came from a pipe cannot be read again; but a part is no whole load.
            drain: self.total.is_none() && settings.commit != Commit::Load,
            grace: settings.grace,
        };
        (engine, running, displays)
    }
}

impl Origin {
    /// Uncompressed bytes that earlier runs have settled.
    fn known_bytes(&self) -> u64 {
        let spans = self.known.iter().flatten();
        spans.map(|span| span.end - span.start).sum()
    }

    /// Number of readers: with `--limit` the order of the sources matters, so it is one.
    fn reader_count(&self, settings: &LoadSettings) -> usize {
        match settings.read.limit {
            Some(_) => 1,
            None => settings.workers().min(self.inputs.len()).max(1),
        }
    }

    /// The readers; none if nothing is left to read. What is passed over as a whole is counted.
    fn readers(
        mut self,
        count: usize,
        entrance: Entrance,
        settings: &LoadSettings,
        running: &Running,
    ) -> Vec<ReadTask> {
        for (_, known) in self
            .whole
            .iter()
            .zip(&self.known)
            .filter(|(whole, _)| **whole)
        {
            known.iter().for_each(|span| running.counters.known(span));
        }
        if self.is_whole() {
            return Vec::new();
        }
        let like_first = self.like_first(&running.target);
        let first = (!self.whole[0]).then(|| (self.first, std::mem::take(&mut self.known[0])));
        let inputs = self.inputs.into_iter().zip(self.known).enumerate();
        let waiting = inputs.skip(1).filter(|(index, _)| !self.whole[*index]);
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
            first: like_first,
            options: settings.read.clone(),
            window: settings.window(),
            taken: self.taken,
            entrance,
            all_or_nothing: settings.commit == Commit::Load,
        };
        readers(count, first, sources)
    }
}
