//! The one switch that stops a load: set by a signal or by the first failure, seen by readers,
//! workers and the progress display.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use tokio::sync::Notify;

/// Whether the load is to stop. Once set it stays set.
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

    /// Whether the load is to stop.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    /// Returns when the load is to stop.
    pub async fn wait(&self) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        // Enabled before the look at the flag, so that a change between the two is not missed.
        changed.as_mut().enable();
        if !self.is_set() {
            changed.await;
        }
    }
}
