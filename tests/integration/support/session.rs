//! A blocking session: SQL in, text out.

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

pub struct Session {
    runtime: Runtime,
    client: Client,
}

impl Session {
    pub fn open(config: &Config) -> Result<Self, tokio_postgres::Error> {
        // One worker: the connection is driven also while nobody asks.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok(client)
        })?;
        Ok(Session { runtime, client })
    }

    /// The rows of all statements; NULL is `None`.
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|index| row.get(index).map(str::to_owned))
                        .collect(),
                ),
                _ => None,
            })
            .collect())
    }

    /// Statements whose rows nobody wants.
    pub fn run(&self, sql: &str) {
        self.lines(sql);
    }

    /// Each row as one line, values separated by `|`, NULL as `~`.
    pub fn lines(&self, sql: &str) -> Vec<String> {
        let rows = self
            .query(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows.into_iter()
            .map(|row| {
                let values: Vec<String> = row
                    .into_iter()
                    .map(|value| value.unwrap_or_else(|| "~".to_owned()))
                    .collect();
                values.join("|")
            })
            .collect()
    }

    /// The first row as one line.
    pub fn one(&self, sql: &str) -> String {
        self.lines(sql).into_iter().next().unwrap()
    }

    pub fn count(&self, table: &str) -> u64 {
        self.one(&format!("SELECT count(*) FROM {table}"))
            .parse()
            .unwrap()
    }
}
