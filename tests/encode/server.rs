//! A private server for this test; durability is not what it is about.

use pgrung::{Embedded, EmbeddedOptions};
use tokio_postgres::{Client, NoTls};

/// A running server; stopped when dropped.
pub struct Server(Embedded);

impl Server {
    /// Starts a server with a new, empty cluster.
    pub async fn start() -> Server {
        let settings = [
            "fsync",
            "full_page_writes",
            "autovacuum",
            "synchronous_commit",
        ]
        .map(|name| (name.to_string(), "off".to_string()));
        let options = EmbeddedOptions {
            settings: settings.to_vec(),
            ..EmbeddedOptions::default()
        };
        let started = tokio::task::spawn_blocking(|| Embedded::start(options)).await;
        Server(started.unwrap().unwrap())
    }

    /// A new connection to `database`.
    pub async fn connect(&self, database: &str) -> Client {
        let mut config = self.0.config();
        config.dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}
