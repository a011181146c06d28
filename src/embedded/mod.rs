//! Starts a private PostgreSQL server from installed programs, and leaves nothing of it behind.
//!
//! Nobody else can reach the server: it listens on one Unix socket, in a directory of mode 0700.
//! That directory is the only guard, so logins over the socket are trusted.
//!
//! It is as durable as a real server (`fsync`, `synchronous_commit` and `full_page_writes` are on),
//! encodes UTF-8, sorts by the C locale, and otherwise keeps the defaults of its version:
//! `max_wal_size`, `shared_buffers` and the like are what `initdb` chose. Our settings are given on
//! the server's command line, so neither `postgresql.conf` nor `ALTER SYSTEM` changes them;
//! [`EmbeddedOptions::settings`] does.
//!
//! | how pgrung ends | what becomes of the server |
//! |---|---|
//! | [`Embedded::stop`], drop, panic | stopped before the call returns, temporary files removed |
//! | `SIGKILL`, abort, `process::exit` | on Linux the kernel sends it a fast shutdown; the next start removes its temporary files |
//! | Ctrl-C at the terminal | nothing by itself: it runs in a session of its own, so the caller closes its connections first and then drops it |
//!
//! PostgreSQL refuses to run as root. Under root the server runs as the owner of a kept directory,
//! else as user `postgres`, else as `nobody`.

mod account;
mod cluster;
mod error;
mod kept;
mod programs;
mod server;
mod temporary;

use std::path::{Path, PathBuf};

use account::Account;
use cluster::{Cluster, SUPERUSER};
pub use error::EmbeddedError;
use programs::Programs;
pub use programs::{Places, find_programs};
use server::Server;

/// PostgreSQL's own default; the socket directory is private, so no other server has it there.
const DEFAULT_PORT: u16 = 5432;

/// Settings that say where things are. Overriding them would make us wait for another server.
const RESERVED: [&str; 4] = [
    "config_file",
    "data_directory",
    "hba_file",
    "unix_socket_directories",
];

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct EmbeddedOptions {
    /// Keeps the cluster in this directory for the next run. Made if missing, used again if it
    /// holds a cluster, refused if it holds anything else. `None`: a temporary cluster.
    pub dir: Option<PathBuf>,
    /// Server settings, name and value as in `postgresql.conf` but without quotes. They override
    /// ours, and of two with the same name the last counts.
    pub settings: Vec<(String, String)>,
    /// Lines of `pg_hba.conf`, put before ours. The first line that matches a login decides.
    pub hba: Vec<String>,
}

/// A private server, running until it is stopped or dropped.
///
/// Dropping it asks for a fast shutdown (open transactions are aborted), then insists, and removes
/// a temporary cluster. All calls block and need no async runtime; inside one, use `spawn_blocking`.
#[derive(Debug)]
pub struct Embedded {
    // Before `cluster`: the server must be gone when its directories are removed.
    server: Option<Server>,
    cluster: Cluster,
    programs: Programs,
    settings: Vec<(String, String)>,
    port: u16,
}

impl Embedded {
    /// Makes a cluster where none is, starts its server, and waits until it takes connections.
    ///
    /// # Errors
    /// Programs missing or not runnable, a directory that cannot be used, a server that does not
    /// start: the error then ends with its log. A failed start leaves no process, and no files but
    /// those that were there before.
    pub fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let port = chosen_port(&options.settings)?;
        let account = Account::choose(options.dir.as_deref())?;
        let programs = Programs::check(find_programs()?, account)?;
        let mut cluster = Cluster::prepare(options.dir.as_deref(), &programs)?;
        cluster.write_hba(&options.hba, programs.account())?;
        let mut embedded = Self {
            server: None,
            cluster,
            programs,
            settings: options.settings,
            port,
        };
        embedded.start_again()?;
        embedded.cluster.keep_what_was_made();
        Ok(embedded)
    }

    /// How to connect: socket directory, port, user and database `postgres`.
    pub fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.socket_dir())
            .port(self.port)
            .user(SUPERUSER)
            .dbname(SUPERUSER);
        config
    }

    /// The same as [`config`](Self::config) in libpq's key=value form, for `psql` and `--dsn`.
    pub fn dsn(&self) -> String {
        format!(
            "host={} port={} user={SUPERUSER} dbname={SUPERUSER}",
            quoted(&self.socket_dir().to_string_lossy()),
            self.port
        )
    }

    /// The directory of the server's Unix socket, mode 0700.
    pub fn socket_dir(&self) -> &Path {
        self.cluster.socket_dir()
    }

    /// The port: part of the socket's name. No TCP port is open unless `settings` asked for one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The cluster's data directory; with [`EmbeddedOptions::dir`], that directory resolved.
    pub fn data_dir(&self) -> &Path {
        self.cluster.data_dir()
    }

    /// The directory of the server programs in use.
    pub fn bin_dir(&self) -> &Path {
        self.programs.bin_dir()
    }

    /// The server's log. A kept cluster's log grows from run to run.
    pub fn server_log(&self) -> PathBuf {
        self.cluster.server_log()
    }

    /// The server's process, or `None` after [`shutdown`](Self::shutdown).
    ///
    /// It is not asked whether it still lives: a crashed server keeps its id until it is shut down.
    pub fn postmaster_pid(&self) -> Option<i32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Stops the server (fast) and removes a temporary cluster.
    ///
    /// # Errors
    /// The server cannot be signalled, or its files cannot be removed.
    pub fn stop(mut self) -> Result<(), EmbeddedError> {
        self.shutdown(false)?;
        self.cluster.remove()
    }

    /// Stops the server and starts it again, on the same socket and data.
    ///
    /// # Errors
    /// As [`shutdown`](Self::shutdown) and [`start_again`](Self::start_again).
    pub fn restart(&mut self, immediate: bool) -> Result<(), EmbeddedError> {
        self.shutdown(immediate)?;
        self.start_again()
    }

    /// Stops the server and keeps its files; nothing happens if it does not run.
    ///
    /// Fast aborts open transactions and writes a checkpoint. Immediate skips that, as a crash
    /// would, and the next start recovers from the log. A server that does not answer is stopped
    /// immediately, then killed: what it had committed is recovered too.
    ///
    /// # Errors
    /// The server cannot be signalled.
    pub fn shutdown(&mut self, immediate: bool) -> Result<(), EmbeddedError> {
        let patience = self.cluster.patience();
        match self.server.take() {
            Some(mut server) => server.stop(immediate, patience),
            None => Ok(()),
        }
    }

    /// Starts the server after [`shutdown`](Self::shutdown); nothing happens if it runs.
    ///
    /// # Errors
    /// The server does not start; the error ends with its log.
    pub fn start_again(&mut self) -> Result<(), EmbeddedError> {
        if self.server.is_none() {
            let settings = self.all_settings();
            let server = Server::start(&self.programs, &self.cluster, &settings, self.port)?;
            self.server = Some(server);
        }
        Ok(())
    }

    /// Ours, then the caller's: of two with the same name the server takes the last.
    fn all_settings(&self) -> Vec<(String, String)> {
        let ours = [
            ("listen_addresses", String::new()),
            (
                "unix_socket_directories",
                list_item(&self.socket_dir().to_string_lossy()),
            ),
            (
                "hba_file",
                self.cluster.hba_file().to_string_lossy().into_owned(),
            ),
            ("port", self.port.to_string()),
            ("fsync", "on".to_owned()),
            ("synchronous_commit", "on".to_owned()),
            ("full_page_writes", "on".to_owned()),
            ("log_destination", "stderr".to_owned()),
            ("logging_collector", "off".to_owned()),
        ];
        ours.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .chain(self.settings.iter().cloned())
            .collect()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Nobody is left to tell; `stop` is there for those who want to know.
        let _ = self.shutdown(false);
    }
}

/// The port the settings ask for, and a refusal of settings that are ours alone.
fn chosen_port(settings: &[(String, String)]) -> Result<u16, EmbeddedError> {
    let mut port = DEFAULT_PORT;
    for (name, value) in settings {
        let folded = name.to_ascii_lowercase().replace('-', "_");
        if RESERVED.contains(&folded.as_str()) {
            return Err(EmbeddedError::ReservedSetting(name.clone()));
        }
        if folded == "port" {
            port = match value.trim().parse() {
                Ok(number) if number > 0 => number,
                _ => return Err(EmbeddedError::BadPort(value.clone())),
            };
        }
    }
    Ok(port)
}

/// A value of a libpq key=value string, quoted if it has to be.
fn quoted(value: &str) -> String {
    let plain = !value.is_empty()
        && !value
            .chars()
            .any(|c| c.is_whitespace() || c == '\'' || c == '\\');
    if plain {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

/// One element of a setting that is a list of directories.
fn list_item(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn a_dsn_value_is_quoted_only_where_libpq_needs_it() {
        assert_eq!(quoted("/tmp/a-b.c"), "/tmp/a-b.c");
        assert_eq!(quoted("/tmp/a b"), "'/tmp/a b'");
        assert_eq!(quoted(r"/tmp/o'clock\"), r"'/tmp/o\'clock\\'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn the_caller_chooses_the_port_but_not_the_socket_directory() {
        assert_eq!(chosen_port(&[]).unwrap(), DEFAULT_PORT);
        assert_eq!(chosen_port(&setting("Port", "6000")).unwrap(), 6000);
        for bad in ["0", "65536", "five"] {
            let error = chosen_port(&setting("port", bad)).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
        let error = chosen_port(&setting("unix-socket-directories", "/tmp")).unwrap_err();
        assert!(
            error.to_string().contains("unix-socket-directories"),
            "{error}"
        );
    }
}
