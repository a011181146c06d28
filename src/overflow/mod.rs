//! What happens to a closed batch when the server is slower than the source.

mod stage;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_channel::TrySendError;

use crate::batch::Batch;
use crate::report::{Console, Counters};

pub use stage::Stage;

/// What to do when all buffers are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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

/// Where readers hand closed batches over.
pub struct Outlet {
    full: async_channel::Sender<Batch>,
    policy: Policy,
    counters: Arc<Counters>,
    console: Console,
}

enum Policy {
    Block,
    Drop(Mutex<Option<Instant>>),
    Spill(Stage),
}

/// What became of a batch that was handed over.
pub enum HandOver {
    /// It is on its way to a worker.
    Taken,
    /// It was dropped or written away; its buffer is free again.
    Free(Batch),
    /// Nobody takes batches any more.
    Gone,
}

impl Outlet {
    /// Hands batches to `full`; waits when it is full.
    pub fn block(
        full: async_channel::Sender<Batch>,
        counters: Arc<Counters>,
        console: Console,
    ) -> Self {
        Outlet {
            full,
            policy: Policy::Block,
            counters,
            console,
        }
    }

    /// Hands batches to `full`; drops them when it is full.
    pub fn drop_newest(
        full: async_channel::Sender<Batch>,
        counters: Arc<Counters>,
        console: Console,
    ) -> Self {
        Outlet {
            full,
            policy: Policy::Drop(Mutex::new(None)),
            counters,
            console,
        }
    }

    /// Hands batches to `full`; writes them to disk when it is full.
    pub fn spill(
        full: async_channel::Sender<Batch>,
        stage: Stage,
        counters: Arc<Counters>,
        console: Console,
    ) -> Self {
        Outlet {
            full,
            policy: Policy::Spill(stage),
            counters,
            console,
        }
    }

    /// Hands a closed batch over.
    pub fn hand_over(&self, batch: Batch) -> HandOver {
        self.counters.queue_depth(self.full.len());
        match &self.policy {
            Policy::Block => match self.full.send_blocking(batch) {
                Ok(()) => HandOver::Taken,
                Err(_) => HandOver::Gone,
            },
            Policy::Spill(stage) => stage.hand_over(batch, &self.full),
            Policy::Drop(noticed) => match self.full.try_send(batch) {
                Ok(()) => HandOver::Taken,
                Err(TrySendError::Closed(_)) => HandOver::Gone,
                Err(TrySendError::Full(batch)) => {
                    self.count_dropped(&batch, noticed);
                    HandOver::Free(batch)
                }
            },
        }
    }

    fn count_dropped(&self, batch: &Batch, noticed: &Mutex<Option<Instant>>) {
        let rows = self
            .counters
            .dropped
            .fetch_add(batch.len() as u64, Ordering::Relaxed)
            + batch.len() as u64;
        self.counters
            .read
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
        let bytes = batch.bytes().len() as u64;
        self.counters
            .dropped_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        let Ok(mut noticed) = noticed.lock() else {
            return;
        };
        if noticed.is_none_or(|last| last.elapsed() >= NOTICE_EVERY) {
            *noticed = Some(Instant::now());
            self.console.notice(&format!(
                "the server is slower than the source: {rows} rows dropped so far (--overflow drop)"
            ));
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Policy::Spill(stage) = &self.policy {
            stage.end();
        }
    }
}
