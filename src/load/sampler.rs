//! Looks at the workers' server processes now and then, to tell afterwards what bound the load.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_postgres::Client;

use crate::connect::{self, ConnectSettings};
use crate::report::Observed;
use crate::stop::Stop;

/// Between two looks: often enough for a load of two seconds, too seldom to cost anything.
const INTERVAL: Duration = Duration::from_millis(100);

/// Server processes of the workers, by process id.
pub type Backends = Arc<Mutex<Vec<i32>>>;

/// What each process does: computes, or the kind and name of what it waits for.
const LOOK: &str = "
SELECT coalesce(wait_event_type, ''), coalesce(wait_event, '')
FROM pg_stat_activity WHERE pid = ANY ($1) AND state <> 'idle'";

/// Looks until the load is done; whatever goes wrong only ends the looking.
pub async fn sample(settings: ConnectSettings, backends: Backends, done: Arc<Stop>) -> Observed {
    let mut observed = Observed::default();
    // A load that is over at once needs no second connection.
    if wait(&done, 3 * INTERVAL).await {
        return observed;
    }
    let Ok(client) = connect::connect(&settings).await else {
        return observed;
    };
    let Ok(statement) = client.prepare(LOOK).await else {
        return observed;
    };
    while !wait(&done, INTERVAL).await {
        let pids = backends.lock().map(|pids| pids.clone()).unwrap_or_default();
        let Ok(rows) = client.query(&statement, &[&pids]).await else {
            return observed;
        };
        for row in rows {
            observed.add(row.get(0), row.get(1));
        }
    }
    observed
}

/// Number of indexes of a table; 0 if it cannot be told.
pub async fn indexes(client: &Client, table: u32) -> i64 {
    let sql = "SELECT count(*) FROM pg_index WHERE indrelid = $1";
    client
        .query_one(sql, &[&table])
        .await
        .map_or(0, |row| row.get(0))
}

/// Waits; true when the load is done.
async fn wait(done: &Stop, time: Duration) -> bool {
    tokio::time::timeout(time, done.wait()).await.is_ok()
}

impl Observed {
    fn add(&mut self, kind: &str, event: &str) {
        match kind {
            "" => self.server_cpu += 1,
            "Client" => self.client += 1,
            _ if event.contains("WAL") || event.contains("Wal") || event == "SyncRep" => {
                self.wal += 1
            }
            "IO" | "BufferPin" => self.table_io += 1,
            _ => self.locks += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_event_has_its_kind() {
        let mut observed = Observed::default();
        for (kind, event) in [
            ("", ""),
            ("Client", "ClientRead"),
            ("IO", "WALSync"),
            ("LWLock", "WALWrite"),
            ("IPC", "SyncRep"),
            ("IO", "DataFileExtend"),
            ("Lock", "extend"),
            ("LWLock", "BufferContent"),
        ] {
            observed.add(kind, event);
        }
        let counts = (
            observed.server_cpu,
            observed.client,
            observed.wal,
            observed.table_io,
            observed.locks,
        );
        assert_eq!(counts, (1, 1, 3, 1, 2));
    }
}
