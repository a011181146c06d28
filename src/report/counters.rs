//! Counts of a load while it runs, written by readers and workers, read by the display.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{Latency, Reasons};
use crate::outcome::{Outcome, Rows, Tally};
use crate::span::Span;
use crate::window::FlushReason;

/// A number that many threads add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Relaxed);
    }

    pub fn set(&self, number: u64) {
        self.0.store(number, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Where rows go that the strategy has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// Into the table.
    #[default]
    Stored,
    /// Into a staging table, until they are merged.
    Staged,
    /// Nowhere.
    Discarded,
}

/// What a load has counted so far. Rows are records of the sources.
#[derive(Debug, Default)]
pub struct Counters {
    way: Way,
    /// Whether staged rows are merged.
    merged: AtomicBool,
    /// Rows of the table that a merge has deleted.
    deleted: Count,
    /// How long a merge kept other writers of the table waiting, in microseconds.
    pub locked_micros: Count,
    /// 1 once staged rows are being merged.
    pub merging: Count,
    /// Rows read from the sources and taken by a worker, known from an earlier run, or dropped.
    pub read: Count,
    /// Rows read and given up because the load stopped; they are in no table.
    pub abandoned: Count,
    /// Bytes of an unfinished record that was taken from a pipe when the load was stopped.
    pub cut_bytes: Count,
    /// What became of rows whose commit is known, in the order of [`Outcome::ALL`].
    outcomes: [Count; Outcome::COUNT],
    /// Bytes of rows that were dropped.
    pub dropped_bytes: Count,
    /// Compressed bytes ever written to disk.
    pub spilled_bytes: Count,
    /// Batches whose commit is known, by why they were closed, in the order of
    /// [`FlushReason::ALL`].
    flushes: [Count; FlushReason::ALL.len()],
    /// Sum over all batches of rows or bytes used, whichever was fuller, in parts per million of
    /// the window's limit.
    fill_ppm: Count,
    pub retries: Count,
    /// Time that workers waited for batches, in microseconds, all workers together.
    pub idle_micros: Count,
    /// Uncompressed bytes of the batches whose commit is known.
    pub bytes: Count,
    /// Uncompressed bytes of the batches that wait for the one commit of `--commit load`.
    pub written_bytes: Count,
    /// Uncompressed bytes of the records that readers have found or passed over.
    pub found_bytes: Count,
    /// Why rows were rejected by this run.
    pub reasons: Reasons,
    /// From BEGIN to the answer to COMMIT.
    pub commit: Latency,
    /// From the first row of a batch to its commit.
    pub wait: Latency,
}

impl Counters {
    /// Of a load of this way.
    pub fn of(way: Way) -> Self {
        Counters {
            way,
            ..Counters::default()
        }
    }

    /// Notes what a merge has made of all staged rows, and of those put aside before it.
    pub fn merged(&self, tally: Tally, deleted: u64) {
        for (outcome, rows) in tally.iter() {
            self.outcomes[outcome as usize].set(rows);
        }
        self.deleted.set(deleted);
        self.merged.store(true, Relaxed);
    }

    /// Notes what became of rows.
    pub fn count(&self, tally: Tally) {
        for (outcome, rows) in tally.iter() {
            self.outcomes[outcome as usize].add(rows);
        }
    }

    /// Notes a committed batch.
    pub fn batch(&self, reason: FlushReason, fill: f64, tally: Tally, bytes: u64) {
        self.flushes[reason as usize].add(1);
        self.fill_ppm.add((fill * 1e6) as u64);
        self.count(tally);
        // Last: who sees these bytes done sees their rows too.
        self.bytes.add(bytes);
    }

    /// Rejects, all there were, are taken back: they are in no table.
    pub fn withdraw_rejects(&self, rows: u64) {
        self.outcomes[Outcome::Rejected as usize]
            .0
            .fetch_sub(rows, Relaxed);
        self.abandoned.add(rows);
        self.reasons.clear();
    }

    /// Notes a span of a source that an earlier run has committed.
    pub fn known(&self, span: &Span) {
        self.read.add(span.records);
        self.found_bytes.add(span.end - span.start);
        self.count(span.tally.of_earlier_run());
    }

    /// What became of rows so far, as the workers have it: what a strategy has taken is stored.
    pub fn tally(&self) -> Tally {
        let rows = |tally: Tally, outcome: &Outcome| {
            tally.and(*outcome, self.outcomes[*outcome as usize].get())
        };
        Outcome::ALL.iter().fold(Tally::default(), rows)
    }

    /// Where the rows went so far.
    pub fn rows(&self) -> Rows {
        let tally = self.tally();
        Rows {
            read: self.read.get().saturating_sub(self.abandoned.get()),
            tally: match self.way {
                Way::Discarded => tally.of_discard(),
                Way::Staged if !self.merged.load(Relaxed) => tally.of_staging(),
                Way::Staged | Way::Stored => tally,
            },
            deleted: self.deleted.get(),
        }
    }

    /// What [`Tally::passed`] means in this load.
    pub fn passed_means(&self) -> &'static str {
        match self.way {
            Way::Discarded => "encoded, none sent",
            Way::Staged => "staged",
            Way::Stored => "loaded",
        }
    }

    /// The batches so far.
    pub fn batches(&self) -> Batches {
        Batches {
            flushes: FlushReason::ALL.map(|reason| self.flushes[reason as usize].get()),
            fill_ppm: self.fill_ppm.get(),
        }
    }
}

/// Batches whose commit is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Batches {
    flushes: [u64; FlushReason::ALL.len()],
    fill_ppm: u64,
}

impl Batches {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.flushes.iter().sum()
    }

    /// By why they were closed.
    pub fn flushes(&self) -> impl Iterator<Item = (FlushReason, u64)> {
        FlushReason::ALL.into_iter().zip(self.flushes)
    }

    /// How full they were on average, 0 to 1 of the nearest limit; 0 without any.
    pub fn fill_mean(&self) -> f64 {
        self.fill_ppm as f64 / 1e6 / self.count().max(1) as f64
    }

    /// Those that came since `before`.
    pub fn since(&self, before: &Batches) -> Batches {
        let mut flushes = self.flushes;
        for (now, before) in flushes.iter_mut().zip(before.flushes) {
            *now -= before;
        }
        Batches {
            flushes,
            fill_ppm: self.fill_ppm - before.fill_ppm,
        }
    }
}

impl Serialize for Batches {
    /// `{"count": 3, "flush": {"rows": 1, ...}, "fill_mean": 0.5}`
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let flush: serde_json::Map<String, serde_json::Value> = self
            .flushes()
            .map(|(reason, batches)| (reason.name().to_string(), batches.into()))
            .collect();
        let mut batches = serializer.serialize_struct("Batches", 3)?;
        batches.serialize_field("count", &self.count())?;
        batches.serialize_field("flush", &flush)?;
        batches.serialize_field("fill_mean", &self.fill_mean())?;
        batches.end()
    }
}
