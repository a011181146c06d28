//! The switches of a load: from a signal to what readers and workers heed.

use std::sync::Arc;
use std::time::Duration;

use crate::stop::Stop;

/// The switches of one load.
#[derive(Debug, Clone, Default)]
pub struct Switches {
    /// Nothing more is taken from the sources.
    pub close: Arc<Stop>,
    /// Nothing new is begun, whatever waits.
    pub halt: Arc<Stop>,
    /// The load is over: displays end.
    pub done: Arc<Stop>,
}

impl Switches {
    /// Waits for `stop` and passes it on. With `drain`, what has been read has `grace` to get into
    /// the table: what came from a pipe cannot be read again. Else nothing more is committed.
    pub async fn watch(self, stop: Arc<Stop>, drain: bool, grace: Duration) {
        stop.wait().await;
        if drain {
            self.close.set();
            tokio::time::sleep(grace).await;
        }
        // Before the readers end: to a worker that is not to halt, their end is that of the source.
        self.halt.set();
        self.close.set();
    }
}
