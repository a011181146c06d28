//! The queue of `--overflow spill`: batches go straight to the workers while these keep up, else to
//! disk, from where a thread hands them on in their order.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_channel::{TrySendError, WeakSender};

use super::spill::{Spill, SpillError};
use super::{HandOver, Queue};
use crate::batch::Batch;
use crate::report::{Console, Counters};

/// Between two looks whether a full spill has room again, or whether the load has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Between two words about a full disk.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Batches on disk between readers and workers. Clones are the same queue.
#[derive(Clone)]
pub struct SpillQueue(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    counters: Arc<Counters>,
    console: Console,
}

struct State {
    spill: Spill,
    /// Whether the thread holds a batch that came from disk and is not handed on yet.
    handing_on: bool,
    /// Whether the readers have ended.
    ended: bool,
    /// What ended the thread early.
    failure: Option<SpillError>,
    /// Whether the user knows that batches go to disk.
    told: bool,
    /// When the user was last told that the disk is full.
    told_full: Option<Instant>,
}

/// What is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnDisk {
    pub batches: u64,
    pub rows: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Compressed bytes ever written.
    pub total_bytes: u64,
}

impl SpillQueue {
    /// A queue over an empty spill.
    pub fn new(spill: Spill, counters: Arc<Counters>, console: Console) -> Self {
        let state = State {
            spill,
            handing_on: false,
            ended: false,
            failure: None,
            told: false,
            told_full: None,
        };
        SpillQueue(Arc::new(Inner {
            state: Mutex::new(state),
            changed: Condvar::new(),
            counters,
            console,
        }))
    }

    /// Starts the thread that hands batches from disk on to the workers of `queue`. It
    /// ends when the readers have ended and the disk is empty, or when nobody takes batches.
    pub fn start(&self, queue: &Queue) {
        let (full, empty) = (queue.full.clone(), queue.empty.clone());
        let give_back = queue.give_back.downgrade();
        let spilling = self.clone();
        let thread = std::thread::Builder::new().name("pgrung-spill".to_string());
        let started = thread.spawn(move || {
            let result = spilling.hand_on(&full, &empty, &give_back);
            let mut state = spilling.lock();
            state.failure = result.err();
            drop(state);
            spilling.0.changed.notify_all();
        });
        if started.is_err() {
            self.0
                .console
                .error("the thread that drains the spill cannot be started");
        }
    }

    fn hand_on(
        &self,
        full: &async_channel::Sender<Batch>,
        empty: &async_channel::Receiver<Batch>,
        give_back: &WeakSender<Batch>,
    ) -> Result<(), SpillError> {
        loop {
            let Some(()) = self.wait_for_batches(full) else {
                return Ok(());
            };
            let Ok(mut batch) = empty.recv_blocking() else {
                return Ok(());
            };
            let mut state = self.lock();
            let popped = state.spill.pop(&mut batch)?;
            state.handing_on = popped;
            drop(state);
            if !popped {
                super::give_back(give_back, batch);
            } else if full.send_blocking(batch).is_err() {
                return Ok(());
            }
            self.lock().handing_on = false;
            self.0.changed.notify_all();
        }
    }

    /// Returns when there is a batch on disk; `None` when there will be none.
    fn wait_for_batches(&self, full: &async_channel::Sender<Batch>) -> Option<()> {
        let mut state = self.lock();
        while state.spill.is_empty() {
            if state.ended || full.is_closed() {
                return None;
            }
            state = self.wait(state);
        }
        Some(())
    }

    /// Takes a closed batch from a reader: straight on to `full` if nothing waits on disk and there
    /// is room, else to disk. Waits where the disk is full too.
    pub(super) fn hand_over(
        &self,
        mut batch: Batch,
        full: &async_channel::Sender<Batch>,
    ) -> HandOver {
        let mut state = self.lock();
        loop {
            if full.is_closed() || state.failure.is_some() {
                return HandOver::Gone;
            }
            // Also after a wait: a batch for which the disk never has room goes this way.
            if state.spill.is_empty() && !state.handing_on {
                match full.try_send(batch) {
                    Ok(()) => return HandOver::Taken,
                    Err(TrySendError::Closed(_)) => return HandOver::Gone,
                    Err(TrySendError::Full(back)) => batch = back,
                }
            }
            if !state.told {
                state.told = true;
                self.0.console.notice(
                    "the server is slower than the source: batches go to disk (--overflow spill)",
                );
            }
            match state.spill.push(&batch) {
                Ok(()) => {
                    let bytes = state.spill.total().bytes;
                    self.0.counters.spilled_bytes.set(bytes);
                    drop(state);
                    self.0.changed.notify_all();
                    return HandOver::Free(batch);
                }
                Err(error) if error.is_full() => {
                    if state
                        .told_full
                        .is_none_or(|last| last.elapsed() >= TELL_AGAIN)
                    {
                        state.told_full = Some(Instant::now());
                        self.0.console.notice(&format!("{error}; the source waits"));
                    }
                    state = self.wait(state);
                }
                Err(error) => {
                    self.0.console.error(&error.to_string());
                    state.failure = Some(error);
                    return HandOver::Gone;
                }
            }
        }
    }

    /// The commit of a batch is known: if it came from disk, it goes from there.
    pub fn settle(&self, batch: &Batch) {
        let mut state = self.lock();
        if let Err(error) = state.spill.settle(batch.source, batch.start_byte) {
            self.0.console.notice(&error.to_string());
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// The readers have ended.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.0.changed.notify_all();
    }

    /// What is on disk.
    pub fn on_disk(&self) -> OnDisk {
        let state = self.lock();
        let waiting = state.spill.waiting();
        OnDisk {
            batches: waiting.batches,
            rows: waiting.rows,
            bytes: state.spill.bytes_on_disk(),
            total_bytes: state.spill.total().bytes,
        }
    }

    /// What went wrong with the disk, once.
    pub fn take_failure(&self) -> Option<SpillError> {
        self.lock().failure.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another thread leaves counts behind that are still true.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.0.changed.wait_timeout(state, LOOK_AGAIN);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
