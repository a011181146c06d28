//! What goes on beside a load on its control connection: looks at the workers' server processes,
//! to tell afterwards what bound the load, and compactions of spans, so that the ledger stays small.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::SimpleQueryMessage;

use super::connection::ControlConnection;
use super::running::Running;
use crate::faults;
use crate::job::LoadSettings;
use crate::ledger::Ledger;
use crate::report::{Counters, Looks};
use crate::stop::{SetOnDrop, Stop};

/// Between two looks: often enough for a load of two seconds, too seldom to cost anything.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Until the next look after one that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Looks that are left out at the beginning: a load that is over at once needs none.
const FIRST_LOOK: Duration = Duration::from_millis(300);

/// Between two thoughts whether spans are worth compacting, and the batches since the last compaction that
/// make another one worth the wait.
const COMPACT: (Duration, u64) = (Duration::from_secs(30), 500);

/// What each process does: computes, or the kind and name of what it waits for. A simple query: so
/// often, and in one transaction, whatever stands between.
fn look_at(processes: &[i32]) -> String {
    format!(
        "SELECT coalesce(wait_event_type, ''), coalesce(wait_event, '')
         FROM pg_stat_activity WHERE pid IN ({}) AND state <> 'idle'",
        processes
            .iter()
            .map(i32::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    )
}

/// The watch over one load.
pub struct Watch {
    task: JoinHandle<(ControlConnection, Looks)>,
    over: SetOnDrop,
    server: ControlConnection,
}

impl Watch {
    /// Starts watching; the watch has the control connection until its end.
    pub fn start(
        connection: ControlConnection,
        running: &Running,
        settings: &LoadSettings,
    ) -> Self {
        let over = Arc::<Stop>::default();
        let server = connection.another();
        let watcher = Watcher {
            connection,
            backends: running.backends.clone(),
            ledger: running.ledger.clone(),
            counters: running.counters.clone(),
            compacted: 0,
            answer_timeout: settings.retries.answer_timeout,
        };
        Watch {
            task: tokio::spawn(watcher.run(over.clone())),
            over: SetOnDrop(over),
            server,
        }
    }

    /// Ends the watch, whatever it is at.
    pub async fn end(self) -> (ControlConnection, Looks) {
        drop(self.over);
        // Whatever went wrong with the watch is no fault of the load.
        self.task.await.unwrap_or((self.server, Looks::default()))
    }
}

struct Watcher {
    connection: ControlConnection,
    /// Server processes of the workers.
    backends: Arc<Mutex<Vec<i32>>>,
    ledger: Option<Ledger>,
    counters: Arc<Counters>,
    /// Batches at the last compaction.
    compacted: u64,
    answer_timeout: Duration,
}

impl Watcher {
    async fn run(mut self, over: Arc<Stop>) -> (ControlConnection, Looks) {
        let (compact_every, compact_batches) = faults::compact_pace().unwrap_or(COMPACT);
        let mut seen = Looks::default();
        let mut thought = Instant::now();
        let mut pause = FIRST_LOOK.min(compact_every);
        while !over.within(pause).await {
            let looked = tokio::select! {
                looked = self.look(&mut seen) => looked,
                () = over.wait() => None,
            };
            if looked.is_none() {
                // Cut off, or the server is away: something may be left on the connection.
                self.connection.forget();
            }
            pause = match looked {
                Some(()) => LOOK_EVERY.min(compact_every),
                None => LOOK_AGAIN,
            };
            if thought.elapsed() >= compact_every {
                thought = Instant::now();
                tokio::select! {
                    () = self.compact(compact_batches) => {}
                    () = over.wait() => self.connection.forget(),
                }
            }
        }
        (self.connection, seen)
    }

    /// One look; `None` if the server does not answer.
    async fn look(&mut self, seen: &mut Looks) -> Option<()> {
        let processes = self.backends.lock().ok()?.clone();
        if processes.is_empty() {
            return Some(());
        }
        let look = async {
            let client = self.connection.client().await.ok()?;
            client.simple_query(&look_at(&processes)).await.ok()
        };
        let looked = tokio::time::timeout(self.answer_timeout, look).await;
        for message in looked.ok()?? {
            if let SimpleQueryMessage::Row(row) = message {
                seen.add(row.get(0)?, row.get(1)?);
            }
        }
        Some(())
    }

    /// Compacts spans if there are enough of them. A compaction that fails is tried again later: the
    /// spans are right either way.
    async fn compact(&mut self, enough: u64) {
        let batches = self.counters.batches().count();
        let Some(ledger) = &self.ledger else { return };
        if batches - self.compacted < enough {
            return;
        }
        let compact = async {
            let client = self.connection.client().await.ok()?;
            ledger.compact(client).await.ok()
        };
        match tokio::time::timeout(self.answer_timeout, compact).await {
            Ok(Some(())) => self.compacted = batches,
            _ => self.connection.forget(),
        }
    }
}
