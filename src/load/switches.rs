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
    /// Waits for `stop` and passes it on. Files are left where they are: they can be read again.
    /// What came from a pipe cannot, so it has `grace` to get into the table.
    pub async fn watch(self, stop: Arc<Stop>, is_pipe: bool, grace: Duration) {
        stop.wait().await;
        self.close.set();
        if is_pipe {
            tokio::time::sleep(grace).await;
        }
        self.halt.set();
    }
}
