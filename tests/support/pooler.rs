//! pgbouncer before a server: few server connections, handed to whoever begins a transaction.

use std::process::{Child, Command, Stdio};

use nix::unistd::geteuid;

use super::server::{Server, dsn, free_port};
use super::session::Session;
use super::{Files, wait_until};

/// Where Debian has it, which is not on everybody's path.
const PROGRAMS: [&str; 2] = ["/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer"];

/// A pooler that ends with this value.
pub struct Pooler {
    process: Child,
    port: u16,
    _files: Files,
}

impl Pooler {
    /// A pooler before `server`, with so many connections to it a database and these settings more.
    pub fn start(server: &Server, size: usize, settings: &str) -> Self {
        let files = Files::new();
        let mode = match settings.contains("pool_mode") {
            true => "",
            false => "pool_mode = transaction\n",
        };
        let users = files.write("users.txt", "\"postgres\" \"\"\n");
        let (port, upstream) = (free_port(), server.port());
        let config = files.write(
            "pgbouncer.ini",
            format!(
                "[databases]\n* = host=127.0.0.1 port={upstream}\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = trust\nauth_file = {users}\nadmin_users = postgres\n\
                 default_pool_size = {size}\nquery_wait_timeout = 20\n{mode}{settings}\n"
            ),
        );
        let program = PROGRAMS
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("pgbouncer is not installed: `make server-programs` does that");
        // It refuses to run as root, and ends with us whatever becomes of us.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if geteuid().is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.args([program, "-q", &config]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let pooler = Pooler {
            process: command.spawn().unwrap(),
            port,
            _files: files,
        };
        wait_until("the pooler runs", || pooler.console().is_some());
        pooler
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn dsn(&self, database: &str) -> String {
        dsn("127.0.0.1", self.port, database)
    }

    /// A session through it.
    pub fn session(&self, database: &str) -> Option<Session> {
        Session::open(&self.dsn(database).parse().unwrap()).ok()
    }

    fn console(&self) -> Option<Session> {
        self.session("pgbouncer")
    }

    /// Whether all `size` connections to the server can be had at once, each with nothing on it.
    #[track_caller]
    pub fn is_whole(&self, database: &str, size: usize) {
        let all: Vec<Session> = (0..size).map(|_| self.session(database).unwrap()).collect();
        for session in &all {
            // Without a connection to the server this waits for `query_wait_timeout`.
            session.run("BEGIN");
        }
        for session in &all {
            let left = session.lines("SELECT name FROM pg_prepared_statements");
            assert_eq!(left, Vec::<String>::new(), "statements are left behind");
            session.run("COMMIT");
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
