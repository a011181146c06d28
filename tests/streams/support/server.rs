//! Private servers, databases on them, and sessions.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgrung::{Embedded, EmbeddedOptions};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::stream::Load;

/// The table of most tests. No unique key, so that a row stored twice shows.
const TABLE: &str = "(id bigint, sent_us bigint, payload text)";

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

/// A server of its own.
pub struct Server {
    embedded: Embedded,
    pub port: u16,
    _janitor: Janitor,
}

impl Server {
    /// Starts one. Nothing here has to survive a power cut, so the disk is not waited for.
    pub fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let port_text = port.to_string();
        let settings = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port_text.as_str()),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("autovacuum", "off"),
            ("track_commit_timestamp", "on"),
            ("timezone", "UTC"),
        ];
        let embedded = Embedded::start(EmbeddedOptions {
            dir: None,
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
        })
        .unwrap();
        let janitor = Janitor::of(&embedded);
        Arc::new(Server {
            embedded,
            port,
            _janitor: janitor,
        })
    }

    /// The one that most tests share.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Server>> = OnceLock::new();
        SHARED.get_or_init(Server::start).clone()
    }

    /// Stops all its processes as they stand until the value is dropped.
    pub fn pause(&self) -> Paused {
        let postmaster = self.embedded.postmaster_pid().unwrap();
        let mut paused = Paused(vec![]);
        // The parent first: then there are no new children.
        paused.stop(postmaster);
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // "pid (name) state parent ..."; the name may hold anything.
            let parent = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.split(' ').nth(1));
            if parent == Some(&postmaster.to_string()) {
                paused.stop(pid);
            }
        }
        assert!(paused.0.len() > 3, "a server has several processes");
        paused
    }
}

/// A server that stands still.
pub struct Paused(Vec<i32>);

impl Paused {
    fn stop(&mut self, pid: i32) {
        if kill(Pid::from_raw(pid), Signal::SIGSTOP).is_ok() {
            self.0.push(pid);
        }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

/// Stops the server and removes its files when this process ends, however that comes about:
/// nothing drops a static, so a shell waits for the end of a pipe whose only writer is this process.
struct Janitor(#[allow(dead_code, reason = "held until this process ends")] Child);

impl Janitor {
    fn of(server: &Embedded) -> Self {
        const SCRIPT: &str = r#"
            cat >/dev/null
            kill -INT "$1"
            for _ in $(seq 100); do kill -0 "$1" || break; sleep 0.1; done
            case "$2" in */pgrung-pg-*) rm -rf -- "$2";; esac
            rm -rf -- "$3"
        "#;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "janitor"])
            .arg(server.postmaster_pid().unwrap().to_string())
            .arg(server.data_dir().parent().unwrap())
            .arg(server.socket_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the tests, not the cleaning.
            .process_group(0)
            .spawn()
            .unwrap();
        Janitor(shell)
    }
}

/// A database of one test's own, with the table `t`.
pub struct Database {
    pub server: Arc<Server>,
    pub name: String,
    session: Session,
}

impl Database {
    /// On the shared server.
    pub fn new() -> Self {
        Self::on(&Server::shared())
    }

    pub fn on(server: &Arc<Server>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("stream_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Session::open(server, "postgres").run(&format!("CREATE DATABASE {name}"));
        let database = Database {
            server: server.clone(),
            session: Session::open(server, &name),
            name,
        };
        database.table("t");
        database
    }

    /// Makes another table for rows.
    pub fn table(&self, name: &str) {
        self.run(&format!("CREATE TABLE {name} {TABLE}"));
    }

    /// Every statement that writes to `t` takes at least `milliseconds`.
    pub fn slow_down(&self, milliseconds: u32) {
        self.run(&format!(
            "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN PERFORM pg_sleep({milliseconds} / 1000.0); RETURN NULL; END';
             CREATE OR REPLACE TRIGGER slow BEFORE INSERT ON t EXECUTE FUNCTION slow()"
        ));
    }

    /// Nobody can write to `table` until the value is dropped.
    pub fn lock(&self, table: &str) -> Session {
        let session = Session::open(&self.server, &self.name);
        session.run(&format!(
            "BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        ));
        session
    }

    pub fn dsn(&self) -> String {
        self.dsn_at(self.server.port)
    }

    /// By way of a proxy that listens at `port`.
    pub fn dsn_at(&self, port: u16) -> String {
        format!(
            "host=127.0.0.1 port={port} user=postgres dbname={} sslmode=disable",
            self.name
        )
    }

    /// `pgrung load -t t`, ready for more flags.
    pub fn load(&self) -> Load {
        self.load_into("t")
    }

    pub fn load_into(&self, table: &str) -> Load {
        Load::new(&self.dsn(), table)
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.session.run(sql);
    }

    /// The first row as one line, values separated by `|`, NULL as `~`.
    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        self.session.lines(sql).into_iter().next().unwrap()
    }

    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        self.one(sql).parse().unwrap()
    }

    #[track_caller]
    pub fn count(&self) -> u64 {
        self.count_of("t")
    }

    #[track_caller]
    pub fn count_of(&self, table: &str) -> u64 {
        self.number(&format!("SELECT count(*) FROM {table}"))
            .cast_unsigned()
    }

    /// The table holds the rows 1 to `last`, each once and as it was written.
    #[track_caller]
    pub fn holds(&self, last: u64) {
        self.table_holds("t", 1, last);
    }

    /// `table` holds the rows `first` to `last`, each once and as it was written.
    #[track_caller]
    pub fn table_holds(&self, table: &str, first: u64, last: u64) {
        let found = self.one(&format!(
            "SELECT count(*), count(DISTINCT id), coalesce(min(id), {first}), coalesce(max(id), {last}),
                    count(*) FILTER (WHERE payload NOT LIKE 'row ' || id || ';%') FROM {table}"
        ));
        let count = last + 1 - first;
        assert_eq!(
            found,
            format!("{count}|{count}|{first}|{last}|0"),
            "{table}: rows, ids, first, last, altered"
        );
    }

    /// No row is there twice, or otherwise than it was written.
    #[track_caller]
    pub fn holds_no_row_twice(&self) {
        let found = self.one(
            "SELECT count(*) - count(DISTINCT id),
                    count(*) FILTER (WHERE payload NOT LIKE 'row ' || id || ';%') FROM t",
        );
        assert_eq!(found, "0|0", "rows twice, rows altered");
    }

    /// The longest time from writing a row into the pipe to its commit, in milliseconds.
    pub fn longest_wait_ms(&self) -> f64 {
        self.one(
            "SELECT max(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000 - sent_us / 1000.0)::float8
             FROM t",
        )
        .parse()
        .unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Only to keep the server small; a failed test may have left sessions behind.
        if !std::thread::panicking() {
            let admin = Session::open(&self.server, "postgres");
            admin.run(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

/// A session of the tests.
pub struct Session(Client);

impl Session {
    fn open(server: &Server, database: &str) -> Self {
        let mut config = server.embedded.config();
        config.dbname(database);
        let connected = runtime().block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        });
        Session(connected.unwrap())
    }

    #[track_caller]
    fn run(&self, sql: &str) {
        self.lines(sql);
    }

    #[track_caller]
    fn lines(&self, sql: &str) -> Vec<String> {
        let messages = runtime()
            .block_on(self.0.simple_query(sql))
            .unwrap_or_else(|error| panic!("{sql}: {error}: {:?}", error.as_db_error()));
        let mut lines = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                let values = (0..row.len()).map(|index| row.get(index).unwrap_or("~"));
                lines.push(values.collect::<Vec<_>>().join("|"));
            }
        }
        lines
    }
}
