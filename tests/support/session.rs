//! Blocking sessions: SQL in, rows or text out.

use std::sync::OnceLock;

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, Error, NoTls, Row, SimpleQueryMessage};

/// What drives the tests' own sessions.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    })
}

pub struct Session(Client);

impl Session {
    pub fn open(config: &Config) -> Result<Self, Error> {
        runtime().block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok(Session(client))
        })
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    pub fn try_run(&self, sql: &str) -> Result<(), Error> {
        runtime().block_on(self.0.batch_execute(sql))
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.try_run(sql)
            .unwrap_or_else(|error| refused(sql, &error));
    }

    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Row> {
        let rows = runtime().block_on(self.0.query(sql, &[]));
        rows.unwrap_or_else(|error| refused(sql, &error))
    }

    /// Each row as one line, values separated by `|`, NULL as `~`.
    pub fn try_lines(&self, sql: &str) -> Result<Vec<String>, Error> {
        let messages = runtime().block_on(self.0.simple_query(sql))?;
        let lines = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let values = (0..row.len()).map(|index| row.get(index).unwrap_or("~"));
                Some(values.collect::<Vec<_>>().join("|"))
            }
            _ => None,
        });
        Ok(lines.collect())
    }

    #[track_caller]
    pub fn lines(&self, sql: &str) -> Vec<String> {
        self.try_lines(sql)
            .unwrap_or_else(|error| refused(sql, &error))
    }

    /// The first row as one line.
    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        self.lines(sql).into_iter().next().unwrap()
    }

    /// A row with one number.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        self.one(sql).parse().unwrap()
    }

    #[track_caller]
    pub fn count(&self, table: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.number(&sql).cast_unsigned()
    }
}

#[track_caller]
fn refused(sql: &str, error: &Error) -> ! {
    panic!("{sql}: {error}: {:?}", error.as_db_error())
}
