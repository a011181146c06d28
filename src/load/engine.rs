//! The moving parts of a load: readers on threads, workers as tasks, and how they end.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::batch::Batch;
use crate::error::Error;
use crate::source::InputError;
use crate::stop::{SetOnDrop, Stop, Stops};

/// What a reader does on its thread. When the last one is dropped, no more batches come.
pub type ReadTask = Box<dyn FnOnce() -> Result<(), InputError> + Send>;

/// What a worker does until no more batches come.
pub type WriteTask = BoxFuture<'static, Result<(), Error>>;

/// Readers and workers that are ready to start.
pub struct Engine {
    pub readers: Vec<ReadTask>,
    pub workers: Vec<WriteTask>,
    /// Batches on their way between them.
    pub waiting: async_channel::Receiver<Batch>,
    /// What readers and workers heed.
    pub stops: Stops,
    /// Whether what has been read is to get into the table when the load is stopped: nobody could
    /// read it again.
    pub drain: bool,
    /// How long that may take, and how long batches under way may.
    pub grace: Duration,
}

impl Engine {
    /// Runs until all readers and workers have ended; once `asked`, they end early.
    ///
    /// # Errors
    /// The first failure of a worker, else that of a reader; each stops all others.
    pub async fn run(self, asked: &Arc<Stop>) -> Result<(), Error> {
        // Also when nobody waits any more: threads do not end by themselves.
        let _halted = [&self.stops.halt, &self.stops.close].map(|stop| SetOnDrop(stop.clone()));
        let readers: Vec<_> = self.readers.into_iter().enumerate().map(start).collect();
        let workers = self.workers.into_iter().collect::<JoinSet<_>>();
        let drain = self.drain.then_some(self.grace);
        let follow = tokio::spawn(self.stops.clone().follow(asked.clone(), drain));
        let written = wait_for_workers(workers, &self.stops, self.grace).await;
        // Batches that nobody has taken are as good as unread.
        self.waiting.close();
        follow.abort();
        written?;
        if asked.is_set() {
            // A reader may wait for its source as long as it likes.
            return Ok(());
        }
        let mut first_error = Ok(());
        for reader in readers {
            // A reader that ends without a word has panicked, or had no thread.
            let read = reader.await.unwrap_or(Err(InputError::Reader));
            first_error = first_error.and(read);
        }
        Ok(first_error?)
    }
}

/// Starts a reader on a thread of its own.
fn start((number, reading): (usize, ReadTask)) -> oneshot::Receiver<Result<(), InputError>> {
    let (answer, read) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("pgrung-read-{number}"));
    // Without a thread the answer is dropped. Nobody listens for it once the load has failed.
    drop(thread.spawn(move || answer.send(reading())));
    read
}

/// Waits for all workers; the first failure stops the others. Once everything is to stop, the
/// batches under way have `grace` to finish.
async fn wait_for_workers(
    mut workers: JoinSet<Result<(), Error>>,
    stops: &Stops,
    grace: Duration,
) -> Result<(), Error> {
    let mut first_error = Ok(());
    let mut over = Box::pin(async {
        stops.halt.wait().await;
        tokio::time::sleep(grace).await;
    });
    loop {
        let joined = tokio::select! {
            joined = workers.join_next() => joined,
            () = &mut over => {
                // Dropping the connections rolls back what they have open.
                workers.shutdown().await;
                None
            }
        };
        let ended = match joined {
            None => return first_error,
            Some(ended) => ended.map_err(Error::panic("a worker")).flatten(),
        };
        if ended.is_err() {
            stops.halt();
            first_error = first_error.and(ended);
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
