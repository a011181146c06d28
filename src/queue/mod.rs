//! What stands between readers and workers: a bounded channel, the buffers that go round, and what
//! happens when the server is slower than the source.

mod spill;
mod spilling;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, TrySendError, WeakSender};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::outcome::{Outcome, Tally};
use crate::report::{Console, Counters};
use crate::source::Downstream;
use crate::span::Span;
use crate::stop::Stops;

pub use spill::{Identity, Leftover, Spill, SpillError, SpilledSource, leftovers};
pub use spilling::SpillQueue;

/// What to do when all buffers are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// Wait: the pipe stalls, nothing is lost.
    Block,
    /// Drop the newest batch and count it.
    Drop,
    /// Write batches to files until the server catches up.
    Spill,
}

/// Between two notices about dropped batches.
const NOTICE_EVERY: Duration = Duration::from_secs(1);

/// A channel of full batches, and a fixed number of buffers that go round between its two ends.
pub struct Queue {
    /// For the readers: full batches.
    pub full: Sender<Batch>,
    /// For the workers: full batches.
    pub waiting: Receiver<Batch>,
    /// For the readers: empty batches; who finds none waits.
    pub empty: Receiver<Batch>,
    /// For the workers, which give every buffer back.
    pub give_back: Sender<Batch>,
}

impl Queue {
    /// A queue in which `waiting` batches may wait, and `buffers` batches in all. Their memory is
    /// taken when they are first filled.
    pub fn new(waiting: usize, buffers: usize) -> Self {
        let (full, waiting) = async_channel::bounded(waiting);
        let (give_back, empty) = async_channel::bounded(buffers);
        for _ in 0..buffers {
            // The channel has room for exactly this many.
            let _ = give_back.try_send(Batch::with_capacity(0));
        }
        Queue {
            full,
            waiting,
            empty,
            give_back,
        }
    }
}

/// Where the readers of a load hand their batches over. When it is dropped, no more will come.
pub struct Entrance {
    pub full: Sender<Batch>,
    pub empty: Receiver<Batch>,
    /// Where buffers go back whose batch went elsewhere; once no worker does that any more, none
    /// come from there.
    pub give_back: WeakSender<Batch>,
    /// What happens when the queue is full.
    pub policy: Policy,
    /// What the load counts.
    pub counters: Arc<Counters>,
    pub stops: Stops,
    pub console: Console,
}

/// What happens to a batch for which the queue has no room.
pub enum Policy {
    Block,
    /// It is dropped; holds when the user was last told.
    Drop(Mutex<Option<Instant>>),
    /// It goes to disk.
    Spill(SpillQueue),
}

/// What became of a batch that was handed over.
enum HandOver {
    /// It is on its way.
    Taken,
    /// Its bytes are elsewhere; its buffer is free again.
    Free(Batch),
    /// Nobody takes batches any more.
    Gone,
}

fn give_back(to: &WeakSender<Batch>, batch: Batch) {
    if let Some(to) = to.upgrade() {
        // The channel has room for every buffer.
        let _ = to.try_send(batch);
    }
}

impl Downstream for Entrance {
    fn empty(&self) -> Option<Batch> {
        self.empty.recv_blocking().ok()
    }

    fn hand_over(&self, batch: Batch) -> bool {
        self.counters.found_bytes.add(batch.bytes().len() as u64);
        let handed_over = match &self.policy {
            Policy::Block => match self.full.send_blocking(batch) {
                Ok(()) => HandOver::Taken,
                Err(_) => HandOver::Gone,
            },
            Policy::Spill(spilling) => spilling.hand_over(batch, &self.full),
            Policy::Drop(told) => match self.full.try_send(batch) {
                Ok(()) => HandOver::Taken,
                Err(TrySendError::Closed(_)) => HandOver::Gone,
                Err(TrySendError::Full(batch)) => {
                    self.count_dropped(&batch, told);
                    HandOver::Free(batch)
                }
            },
        };
        match handed_over {
            HandOver::Taken => {}
            HandOver::Free(batch) => give_back(&self.give_back, batch),
            HandOver::Gone => return false,
        }
        true
    }

    fn known(&self, span: &Span) {
        self.counters.known(span);
    }

    fn cut(&self, bytes: u64) {
        self.counters.cut_bytes.add(bytes);
    }

    fn is_stopped(&self) -> bool {
        self.stops.halt.is_set()
    }

    fn is_closing(&self) -> bool {
        self.stops.close.is_set()
    }
}

impl Entrance {
    fn count_dropped(&self, batch: &Batch, told: &Mutex<Option<Instant>>) {
        let rows = batch.len() as u64;
        self.counters.read.add(rows);
        self.counters.count(Tally::of(Outcome::Dropped, rows));
        self.counters.dropped_bytes.add(batch.bytes().len() as u64);
        let Ok(mut told) = told.lock() else {
            return;
        };
        if told.is_none_or(|last| last.elapsed() >= NOTICE_EVERY) {
            *told = Some(Instant::now());
            let rows = self.counters.tally()[Outcome::Dropped];
            self.console.notice(&format!(
                "the server is slower than the source: {rows} rows dropped so far (--overflow drop)"
            ));
        }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        if let Policy::Spill(spilling) = &self.policy {
            spilling.end();
        }
    }
}
