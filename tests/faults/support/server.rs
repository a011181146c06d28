//! Private servers that listen on 127.0.0.1, and databases on them.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use std::os::unix::process::CommandExt;

use pgrung::{Embedded, EmbeddedOptions};
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

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
    embedded: Mutex<Embedded>,
    port: u16,
    _janitor: Janitor,
}

impl Server {
    /// Starts one. Nothing here has to survive a power cut, so the disk is not waited for; what a
    /// crash of the server process loses is lost all the same.
    pub fn start(settings: &[(&str, &str)]) -> Arc<Self> {
        Self::start_in(None, settings)
    }

    /// Starts one on the data in `dir`.
    pub fn start_in(dir: Option<&std::path::Path>, settings: &[(&str, &str)]) -> Arc<Self> {
        let port = free_port();
        let port_text = port.to_string();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port_text.as_str()),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("autovacuum", "off"),
            ("timezone", "UTC"),
            ("max_wal_size", "256MB"),
        ];
        let settings = ours.iter().chain(settings);
        let embedded = Embedded::start(EmbeddedOptions {
            dir: dir.map(Into::into),
            settings: settings
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
        })
        .unwrap();
        let janitor = Janitor::of(&embedded);
        Arc::new(Server {
            embedded: Mutex::new(embedded),
            port,
            _janitor: janitor,
        })
    }

    /// The one that most tests share.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Server>> = OnceLock::new();
        SHARED
            .get_or_init(|| Server::start(&[("max_connections", "60")]))
            .clone()
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// For restarts.
    pub fn embedded(&self) -> MutexGuard<'_, Embedded> {
        self.embedded.lock().unwrap()
    }

    /// A DSN over TCP, without TLS.
    pub fn dsn(&self, database: &str) -> String {
        dsn(self.port, database)
    }
}

/// A DSN over TCP to this port, without TLS.
pub fn dsn(port: u16, database: &str) -> String {
    format!(
        "host=127.0.0.1 port={port} user=postgres dbname={database} sslmode=disable connect_timeout=5"
    )
}

/// A port nobody listens on, a moment ago at least.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
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

/// A database of one test's own.
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

    /// An empty database on `server`.
    pub fn on(server: &Arc<Server>) -> Arc<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("faults_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = Session::open(server, "postgres");
        admin.run(&format!("CREATE DATABASE {name}"));
        Arc::new(Database {
            server: server.clone(),
            name,
            kept: Mutex::default(),
        })
    }

    /// A database that is there, as on a standby.
    pub fn named(server: &Arc<Server>, name: &str) -> Arc<Self> {
        Arc::new(Database {
            server: server.clone(),
            name: name.to_owned(),
            kept: Mutex::default(),
        })
    }

    pub fn dsn(&self) -> String {
        self.server.dsn(&self.name)
    }

    /// A new session, over the socket: the faults are on TCP.
    pub fn session(&self) -> Session {
        Session::open(&self.server, &self.name)
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
        self.with_session(|session| session.query(sql, &[]))
    }

    #[track_caller]
    fn with_session<T>(&self, work: impl FnOnce(&Session) -> T) -> T {
        let mut kept = match self.kept.lock() {
            Ok(kept) => kept,
            Err(poisoned) => poisoned.into_inner(),
        };
        work(match &mut *kept {
            Some(session) if !session.0.is_closed() => session,
            other => other.insert(self.session()),
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Only to keep the server small; a failed test may have left sessions behind.
        if !std::thread::panicking()
            && let Some(admin) = Session::try_open(&self.server, "postgres")
        {
            let _ = admin.try_run(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

/// A session of the tests.
pub struct Session(Client);

impl Session {
    pub fn open(server: &Server, database: &str) -> Self {
        Self::try_open(server, database).unwrap()
    }

    fn try_open(server: &Server, database: &str) -> Option<Self> {
        Self::try_open_as("postgres", server, database)
    }

    pub fn try_open_as(user: &str, server: &Server, database: &str) -> Option<Self> {
        let mut config = server.embedded.lock().ok()?.config();
        config.dbname(database).user(user);
        let connected = runtime().block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        });
        connected.ok().map(Session)
    }

    pub fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        runtime().block_on(self.0.batch_execute(sql))
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.try_run(sql).unwrap_or_else(|error| {
            panic!("{sql}: {error}: {:?}", error.as_db_error());
        });
    }

    #[track_caller]
    pub fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        runtime()
            .block_on(self.0.query(sql, parameters))
            .unwrap_or_else(|error| panic!("{sql}: {error}: {:?}", error.as_db_error()))
    }

    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        self.query(sql, &[])[0].get(0)
    }
}
