//! The private server of the test run, and databases on it.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrung::{Embedded, EmbeddedOptions};

use super::command::pgrung;
use super::session::Session;

/// In every DSN of the tests, needed or not: [`super::command`] looks for it in every output.
pub const PASSWORD: &str = "s3cr:et@/%x";

/// The part of [`PASSWORD`] that no output may hold, whichever way it is quoted.
pub const SECRET: &str = "s3cr";

/// A port nobody listens on, a moment ago at least.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

struct Site {
    server: Embedded,
    tcp_port: u16,
    _janitor: Janitor,
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let tcp_port = free_port();
        let settings = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", tcp_port.to_string()),
            // Nothing here has to survive a power cut.
            ("fsync", "off".to_owned()),
            ("synchronous_commit", "off".to_owned()),
            ("timezone", "UTC".to_owned()),
        ];
        let server = Embedded::start(EmbeddedOptions {
            dir: None,
            settings: settings
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            hba: vec!["host all all 127.0.0.1/32 scram-sha-256".to_owned()],
        })
        .unwrap();
        let janitor = Janitor::of(&server);
        Session::open(&server.config())
            .unwrap()
            .run(&format!("CREATE ROLE loader LOGIN PASSWORD '{PASSWORD}'"));
        Site {
            server,
            tcp_port,
            _janitor: janitor,
        }
    })
}

/// Stops the server and removes its files when this process ends, however that comes about.
///
/// Nothing drops a static, so a shell waits for the end of a pipe whose only writer is this
/// process.
struct Janitor(Child);

impl Janitor {
    fn of(server: &Embedded) -> Self {
        const SCRIPT: &str = r#"
            cat >/dev/null
            kill -INT "$1"
            for _ in $(seq 100); do kill -0 "$1" || break; sleep 0.1; done
            rm -rf -- "$2" "$3"
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
        assert!(shell.stdin.is_some());
        Janitor(shell)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Only if the start of the site fails half-way.
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = stdin.flush();
        }
    }
}

/// A database of one test's own on the shared server, removed with it.
pub struct Database {
    pub name: String,
    pub session: Session,
}

impl Database {
    /// An empty database.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let mut config = site().server.config();
        let admin = Session::open(&config).unwrap();
        admin.run(&format!("CREATE DATABASE {name}"));
        config.dbname(&name);
        Database {
            name,
            session: Session::open(&config).unwrap(),
        }
    }

    /// A database in which `sql` has run.
    pub fn with(sql: &str) -> Self {
        let database = Self::new();
        database.session.run(sql);
        database
    }

    /// The superuser over the socket; the password is not asked for.
    pub fn dsn(&self) -> String {
        self.dsn_of("postgres")
    }

    /// `role` over the socket.
    pub fn dsn_of(&self, role: &str) -> String {
        format!(
            "host={} port={} user={role} password='{PASSWORD}' dbname={}",
            site().server.socket_dir().display(),
            site().tcp_port,
            self.name
        )
    }

    /// The role `loader` over TCP, which must show its password.
    pub fn tcp_dsn(&self, password: &str) -> String {
        format!(
            "host=127.0.0.1 port={} user=loader password='{password}' dbname={}",
            site().tcp_port,
            self.name
        )
    }

    /// A further session, on a thread of its own for example.
    pub fn another_session(&self) -> Session {
        let mut config = site().server.config();
        config.dbname(&self.name);
        Session::open(&config).unwrap()
    }

    /// `pgrung load --table TABLE` into this database, ready for more flags; whatever was loaded
    /// before is loaded again.
    pub fn load(&self, table: &str) -> Command {
        let mut command = self.load_once(table);
        command.args(super::AGAIN);
        command
    }

    /// The same, for what was not loaded before.
    pub fn load_once(&self, table: &str) -> Command {
        let mut command = pgrung();
        command.args(["load", "--dsn", &self.dsn(), "--table", table]);
        command
    }

    /// `pgrung COMMAND` on the ledger of this database.
    pub fn pgrung(&self, command: &str) -> Command {
        let mut line = pgrung();
        line.args([command, "--dsn", &self.dsn()]);
        line
    }

    /// `psql` on this database.
    pub fn psql(&self) -> Command {
        super::psql::psql(&self.dsn())
    }

    /// The rows of a table as lines, in their order.
    pub fn rows(&self, table: &str) -> Vec<String> {
        self.session
            .lines(&format!("SELECT * FROM {table} AS t ORDER BY t::text"))
    }

    pub fn count(&self, table: &str) -> u64 {
        self.session.count(table)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Of a failed test too; what is left goes with the server.
        if let Ok(admin) = Session::open(&site().server.config()) {
            let _ = admin.query(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
