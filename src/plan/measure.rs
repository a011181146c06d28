//! Measures what a round trip and a commit take on a server.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::WAL_WRITER_DELAY;

/// Tries of each measurement; the median stands.
const TRIES: usize = 20;

/// Times of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTimes {
    /// From a message to its answer.
    pub round_trip: Duration,
    /// What COMMIT takes beyond the round trip.
    pub commit: Duration,
    pub wal_writer_delay: Duration,
}

impl Default for ServerTimes {
    /// A server on this machine, with a disk that flushes in 2 ms.
    fn default() -> Self {
        ServerTimes {
            round_trip: Duration::from_micros(100),
            commit: Duration::from_millis(2),
            wal_writer_delay: WAL_WRITER_DELAY,
        }
    }
}

impl ServerTimes {
    /// Asks the server. Writes messages of no content to its log, and nothing else.
    pub async fn on(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let mut round_trips = Vec::with_capacity(TRIES);
        let mut commits = Vec::with_capacity(TRIES);
        for _ in 0..TRIES {
            let asked = Instant::now();
            client.batch_execute("").await?;
            round_trips.push(asked.elapsed());
            client
                .batch_execute("BEGIN; SELECT pg_logical_emit_message(true, 'pgrung', '')")
                .await?;
            let asked = Instant::now();
            client.batch_execute("COMMIT").await?;
            commits.push(asked.elapsed());
        }
        let delay =
            "SELECT setting::bigint AS delay FROM pg_settings WHERE name = 'wal_writer_delay'";
        let delay: i64 = client.query_typed_one(delay, &[]).await?.get("delay");
        let round_trip = median(round_trips);
        Ok(ServerTimes {
            round_trip,
            commit: median(commits).saturating_sub(round_trip),
            wal_writer_delay: Duration::from_millis(u64::try_from(delay).unwrap_or(0)),
        })
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
