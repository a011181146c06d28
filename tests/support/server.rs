//! Private servers, and databases on them.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::{Config, Row};

use super::command::{Cmd, Ran, Running, pgrung, psql};
use super::library::{Embedded, EmbeddedOptions};
use super::session::Session;
use super::{cleaner, text, wait_until};

/// In every DSN of the tests, needed or not: [`super::command`] looks for it in every output.
pub const PASSWORD: &str = "s3cr:et@/%x";

/// The part of [`PASSWORD`] that no output may hold, whichever way it is quoted.
pub const SECRET: &str = "s3cr";

/// Over TCP the role `loader` must show its password.
const HBA: [&str; 2] = [
    "host all loader 127.0.0.1/32 scram-sha-256",
    "host all all 127.0.0.1/32 trust",
];

/// Nothing here has to survive a power cut, so the disk is not waited for; what a crash of the
/// server process loses is lost all the same.
const SETTINGS: [(&str, &str); 7] = [
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("autovacuum", "off"),
    ("timezone", "UTC"),
    ("max_wal_size", "256MB"),
    ("max_connections", "100"),
];

/// A port nobody listens on, a moment ago at least.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A server on 127.0.0.1 and on a socket.
pub struct Server {
    /// `None`: a run of the command holds it.
    embedded: Option<Mutex<Embedded>>,
    holder: Option<Running>,
    /// The superuser over the socket.
    config: Config,
    host: String,
    port: u16,
}

impl Server {
    pub fn start(settings: &[(&str, &str)]) -> Arc<Self> {
        Arc::new(Self::start_with(None, settings, &HBA))
    }

    /// On the data in `dir`, with these lines of `pg_hba.conf`.
    pub fn start_with(dir: Option<&Path>, settings: &[(&str, &str)], hba: &[&str]) -> Self {
        let port = free_port();
        let port_text = port.to_string();
        let settings = [("port", port_text.as_str())]
            .into_iter()
            .chain(SETTINGS)
            .chain(settings.iter().copied());
        let embedded = Embedded::start(EmbeddedOptions {
            dir: dir.map(Into::into),
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            hba: hba.iter().map(ToString::to_string).collect(),
        })
        .unwrap();
        cleaner::hand_over(&embedded);
        Server {
            config: embedded.config(),
            embedded: Some(Mutex::new(embedded)),
            holder: None,
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    /// A primary's copy, started from its directory.
    pub fn start_in(dir: &Path) -> Arc<Self> {
        Arc::new(Self::start_with(Some(dir), &[], &HBA))
    }

    /// The one that most tests share.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Server>> = OnceLock::new();
        let start = || {
            let server = Server::start(&[]);
            let role = format!("CREATE ROLE loader LOGIN PASSWORD '{PASSWORD}'");
            server.session("postgres").run(&role);
            server
        };
        SHARED.get_or_init(start).clone()
    }

    /// One that a run of the command starts, so that its environment is ours to choose; it ends with
    /// this value.
    pub fn held_by_a_load(environment: &[(&str, &str)]) -> Arc<Self> {
        // A table that every cluster has and nobody may write; the rows never end.
        let words = "load --embedded --table pg_catalog.pg_description --strategy discard --no-header --verbose";
        let load = environment
            .iter()
            .fold(pgrung(words), |load, (name, value)| load.env(name, value));
        let (holder, config) = held_by(&load);
        Arc::new(Server {
            host: text(&socket_dir(&config)),
            port: config.get_ports()[0],
            config,
            embedded: None,
            holder: Some(holder),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser over the socket.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// For restarts.
    pub fn embedded(&self) -> MutexGuard<'_, Embedded> {
        self.embedded.as_ref().unwrap().lock().unwrap()
    }

    pub fn dsn(&self, database: &str) -> String {
        dsn(&self.host, self.port, database)
    }

    /// A new session of the superuser, over the socket: the faults are on TCP.
    pub fn session(&self, database: &str) -> Session {
        self.try_session("postgres", database).unwrap()
    }

    pub fn try_session(&self, user: &str, database: &str) -> Option<Session> {
        let mut config = self.config.clone();
        Session::open(config.dbname(database).user(user)).ok()
    }

    /// Stops all its processes as they stand until the value is dropped.
    pub fn pause(&self) -> Paused {
        let postmaster = self.embedded().postmaster_pid().unwrap();
        let mut paused = Paused(vec![]);
        // The parent first: then there are no new children.
        paused.stop(postmaster);
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // "pid (name) state parent ..."; the name may hold anything.
            let rest = stat.rsplit_once(") ");
            let parent = rest.and_then(|(_, rest)| rest.split(' ').nth(1));
            if parent == Some(&postmaster.to_string()) {
                paused.stop(pid);
            }
        }
        assert!(paused.0.len() > 3, "a server has several processes");
        paused
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its source, so that it removes what it made.
        if let Some(mut holder) = self.holder.take() {
            holder.pipe = None;
            wait_until("the holder ends", || holder.has_ended());
        }
    }
}

/// Starts a load that starts a server and says so (`--verbose`), with its source open.
#[track_caller]
pub fn held_by(load: &Cmd) -> (Running, Config) {
    let mut holder = load.open();
    // The line is whole when its end is there.
    let line = |said: &str| {
        let (_, rest) = said.split_once("private server: ")?;
        Some(rest.split_once('\n')?.0.to_owned())
    };
    wait_until("the server runs", || {
        line(&holder.stderr()).is_some() || holder.has_ended()
    });
    let said = holder.stderr();
    let dsn = line(&said).unwrap_or_else(|| panic!("no server: {said}"));
    (holder, dsn.parse().unwrap())
}

pub fn socket_dir(config: &Config) -> PathBuf {
    match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Unix(dir) => dir.clone(),
        other => panic!("{other:?}"),
    }
}

/// The superuser, without TLS.
pub fn dsn(host: &str, port: u16, database: &str) -> String {
    format!(
        "host={host} port={port} user=postgres password='{PASSWORD}' dbname={database} sslmode=disable connect_timeout=5"
    )
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

/// A database of one test's own, removed with it.
pub struct Database {
    pub server: Arc<Server>,
    pub name: String,
    /// Opened when first asked for, and again after a crash.
    kept: Mutex<Option<Session>>,
}

impl Database {
    /// An empty database on the shared server.
    pub fn new() -> Arc<Self> {
        Self::on(&Server::shared())
    }

    /// A database on the shared server in which `sql` has run.
    pub fn with(sql: &str) -> Arc<Self> {
        let database = Self::new();
        database.run(sql);
        database
    }

    /// An empty database on `server`.
    pub fn on(server: &Arc<Server>) -> Arc<Self> {
        Self::made(server, "")
    }

    /// An empty database, made with these options.
    pub fn made(server: &Arc<Server>, options: &str) -> Arc<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server
            .session("postgres")
            .run(&format!("CREATE DATABASE {name} {options}"));
        Self::named(server, &name)
    }

    /// A database that is there, as on a standby.
    pub fn named(server: &Arc<Server>, name: &str) -> Arc<Self> {
        Arc::new(Database {
            server: server.clone(),
            name: name.to_owned(),
            kept: Mutex::default(),
        })
    }

    /// The superuser over TCP.
    pub fn dsn(&self) -> String {
        self.server.dsn(&self.name)
    }

    /// The role `loader` over TCP.
    pub fn loader_dsn(&self, password: &str) -> String {
        let port = self.server.port;
        format!(
            "host=127.0.0.1 port={port} user=loader password='{password}' dbname={}",
            self.name
        )
    }

    /// A new session, over the socket.
    pub fn session(&self) -> Session {
        self.server.session(&self.name)
    }

    /// Nobody else can use `table` until the value is dropped.
    pub fn lock(&self, table: &str) -> Session {
        let session = self.session();
        session.run(&format!(
            "BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        ));
        session
    }

    /// `pgrung load -t table`.
    pub fn load_once(&self, table: &str) -> Cmd {
        self.pgrung("load").args(["-t", table])
    }

    /// The same, whatever was loaded before is loaded again.
    pub fn load(&self, table: &str) -> Cmd {
        self.load_once(table).arg("--restart")
    }

    /// Runs [`Self::load`] of a file with these flags.
    pub fn loads(&self, table: &str, file: &impl AsRef<OsStr>, flags: &str) -> Ran {
        self.load(table).arg(file).flags(flags).run()
    }

    /// A command of `pgrung` on this database.
    pub fn pgrung(&self, words: &str) -> Cmd {
        pgrung(words).dsn(&self.dsn())
    }

    pub fn psql(&self) -> Cmd {
        psql(&self.dsn())
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.with_session(|session| session.run(sql));
    }

    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        self.with_session(|session| session.number(sql))
    }

    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Row> {
        self.with_session(|session| session.query(sql))
    }

    #[track_caller]
    pub fn lines(&self, sql: &str) -> Vec<String> {
        self.with_session(|session| session.lines(sql))
    }

    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        self.with_session(|session| session.one(sql))
    }

    #[track_caller]
    pub fn count(&self, table: &str) -> u64 {
        self.with_session(|session| session.count(table))
    }

    /// The rows of a table as lines, in their order.
    pub fn rows(&self, table: &str) -> Vec<String> {
        self.lines(&format!("SELECT * FROM {table} AS t ORDER BY t::text"))
    }

    /// Sessions of loaders on this database of which `condition` is true.
    #[track_caller]
    pub fn loaders(&self, condition: &str) -> i64 {
        self.number(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrung' AND datname = current_database() AND {condition}"
        ))
    }

    /// Whether a loader waits for a lock.
    pub fn waits_for_lock(&self) -> bool {
        self.loaders("wait_event_type = 'Lock'") > 0
    }

    /// Every statement that writes to `table` takes at least so long.
    pub fn slow_down(&self, table: &str, milliseconds: u32) {
        self.run(&format!(
            "CREATE OR REPLACE FUNCTION slow_{table}() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN PERFORM pg_sleep({milliseconds} / 1000.0); RETURN NULL; END';
             CREATE OR REPLACE TRIGGER slow BEFORE INSERT ON {table} EXECUTE FUNCTION slow_{table}()"
        ));
    }

    #[track_caller]
    fn with_session<T>(&self, work: impl FnOnce(&Session) -> T) -> T {
        let mut kept = match self.kept.lock() {
            Ok(kept) => kept,
            Err(poisoned) => poisoned.into_inner(),
        };
        work(match &mut *kept {
            Some(session) if !session.is_closed() => session,
            other => other.insert(self.session()),
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Only to keep the server small; what a failed test leaves goes with the server.
        if !std::thread::panicking()
            && let Some(admin) = self.server.try_session("postgres", "postgres")
        {
            let _ = admin.try_run(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
