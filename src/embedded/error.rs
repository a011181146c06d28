//! Names what can go wrong with the private server.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why a private server could not be started, stopped or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// No directory with the server programs was found.
    #[error(
        "no PostgreSQL server programs (initdb, postgres) in PATH, from pg_config, or in the usual \
         places; install them (apt-get install postgresql, dnf install postgresql-server, brew \
         install postgresql) or set PGRUNG_PG_BIN to the directory that holds them"
    )]
    NoPrograms,
    /// `PGRUNG_PG_BIN` names a directory without the programs.
    #[error(
        "PGRUNG_PG_BIN={} holds no executable initdb and postgres; set it to the bin directory of a \
         PostgreSQL server, or unset it to search the usual places", .0.display()
    )]
    BadProgramsDir(PathBuf),
    /// A program is there but does not run, for instance because a library is missing.
    #[error("{} does not run: {reason}; repair that PostgreSQL or name another in PGRUNG_PG_BIN", program.display())]
    BrokenProgram {
        /// The program.
        program: PathBuf,
        /// Its own words, or those of the system.
        reason: String,
    },
    /// The server's user may not enter a directory.
    #[error(
        "{} cannot be entered by user {user}, as whom the server runs under root; choose a place \
         open to that user", path.display()
    )]
    OutOfReach {
        /// The directory, or the program in it.
        path: PathBuf,
        /// The server's user.
        user: String,
    },
    /// Under root, and no other user to run the server as.
    #[error(
        "running as root, which PostgreSQL refuses, and there is no user postgres or nobody; make \
         one of them or run as another user"
    )]
    NoAccount,
    /// The directory holds files, but no cluster.
    #[error(
        "{} is not empty and not a PostgreSQL cluster; name an empty or a new directory", .0.display()
    )]
    NotACluster(PathBuf),
    /// The cluster was made by another major version.
    #[error(
        "{} is a cluster of PostgreSQL {cluster}, but {} is version {programs}; set PGRUNG_PG_BIN \
         to the programs of version {cluster}, or name another directory", dir.display(), bin.display()
    )]
    OtherVersion {
        /// The data directory.
        dir: PathBuf,
        /// The cluster's major version.
        cluster: String,
        /// The directory of the programs.
        bin: PathBuf,
        /// The major version of the programs.
        programs: u32,
    },
    /// Another server or another pgrung uses the directory.
    #[error("{} is in use by {}; stop that first, or name another directory", dir.display(), user_of(*pid))]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The server process, if it has started.
        pid: Option<i32>,
    },
    /// A setting that only pgrung may set, as given.
    #[error("setting {0} cannot be overridden for the private server; leave it out")]
    ReservedSetting(String),
    /// A port that is none, as given.
    #[error(
        "port {0} of the private server is not a number from 1 to 65535; give one or leave it out"
    )]
    BadPort(String),
    /// `initdb` failed.
    #[error("initdb could not make a cluster in {} ({status}); mend what it says:\n{output}", dir.display())]
    Initdb {
        /// The data directory.
        dir: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// The server ended instead of taking connections.
    #[error("the private server ended while starting ({status}); mend what its log says:\n{log}")]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server neither took connections nor ended.
    #[error(
        "the private server was not ready and said nothing for {seconds} s, and was stopped; see \
         whether the machine is overloaded. Its log ends:\n{log}"
    )]
    NotReady {
        /// How long it was silent.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
    /// The server of this process id did not end, whatever it was sent.
    #[error(
        "the private server (process {0}) does not end, not even when killed; see what it waits for"
    )]
    Unstoppable(i32),
    /// The operating system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn user_of(pid: Option<i32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another pgrung".to_owned(),
    }
}

/// How many lines of a program's output an error carries.
const LAST_LINES: usize = 20;

/// The end of what a program said, as an error carries it.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    // The difference is never more than the length.
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// Adds to a system error what was tried, and on what.
pub(super) trait Tried<T> {
    /// `action` completes the sentence "cannot ... PATH".
    fn tried(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError> {
        self.map_err(|source| EmbeddedError::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}
