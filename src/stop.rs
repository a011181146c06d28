//! The switches that stop a load: set by a signal or by the first failure, seen by readers,
//! workers and the displays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Whether to stop. Once set it stays set.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    /// The signal that set it; 0: none.
    signal: AtomicI32,
    changed: Notify,
}

impl Stop {
    /// Asks everybody to finish what is under way and begin nothing new.
    pub fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// As [`Stop::set`], because of a signal.
    pub fn set_by(&self, signal: i32) {
        self.signal.store(signal, Ordering::SeqCst);
        self.set();
    }

    /// The signal that asked for the stop, if one did.
    pub fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    /// Returns when it is set.
    pub async fn wait(&self) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        // Enabled before the look at the flag, so that a change between the two is not missed.
        changed.as_mut().enable();
        if !self.is_set() {
            changed.await;
        }
    }

    /// Waits for `time`, or until it is set, and then is true.
    pub async fn within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.wait()).await.is_ok()
    }
}

/// Sets its stop when it goes: also when the work that waits is given up.
pub struct SetOnDrop(pub Arc<Stop>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The two stops of a load, one after the other. Clones are the same stops.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    /// Nothing more is taken from the sources.
    pub close: Arc<Stop>,
    /// Nothing new is begun, whatever waits.
    pub halt: Arc<Stop>,
}

impl Stops {
    /// Stops the readers and everything else.
    pub fn halt(&self) {
        // Before the readers end: to a worker that is not to halt, their end is that of the source.
        self.halt.set();
        self.close.set();
    }

    /// Waits for `asked` and passes it on; with `drain`, what has been read has so long to get
    /// into the table, because nobody could read it again.
    pub async fn follow(self, asked: Arc<Stop>, drain: Option<Duration>) {
        asked.wait().await;
        if let Some(grace) = drain {
            self.close.set();
            tokio::time::sleep(grace).await;
        }
        self.halt();
    }
}
