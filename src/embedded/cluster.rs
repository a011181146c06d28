//! Prepares the directories of a cluster: data, socket, access rules.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::account::Account;
use super::error::{EmbeddedError, Tried, last_lines};
use super::kept::KeptDir;
use super::programs::Programs;
use super::temporary::{SHORT_PLACE, TemporaryDir, sweep};

/// The superuser `initdb` makes, and the database that is always there.
pub(super) const SUPERUSER: &str = "postgres";

/// The longest path of a socket in bytes: `sun_path` has 108 on Linux and 104 on macOS, one of them
/// for the final NUL.
const SOCKET_PATH_LIMIT: usize = 103;

/// How long a fast shutdown may take. A temporary cluster loses nothing by being cut short; a kept
/// one would have to recover at its next start.
const TEMPORARY_PATIENCE: Duration = Duration::from_secs(10);
const KEPT_PATIENCE: Duration = Duration::from_secs(60);

/// The directories of one cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    data: PathBuf,
    kept: Option<KeptDir>,
    scratch: TemporaryDir,
    /// Elsewhere than `scratch` if the socket's path would be too long there.
    sockets: Option<TemporaryDir>,
}

impl Cluster {
    /// Makes or opens the data directory, and makes the temporary ones.
    pub(super) fn prepare(dir: Option<&Path>, programs: &Programs) -> Result<Self, EmbeddedError> {
        let kept = match dir {
            Some(dir) => Some(KeptDir::open(dir, programs)?),
            None => None,
        };
        let place = std::path::absolute(env::temp_dir()).unwrap_or_else(|_| SHORT_PLACE.into());
        sweep(&place, programs.account());
        let short = || TemporaryDir::make(Path::new(SHORT_PLACE), programs);
        let scratch = match TemporaryDir::make(&place, programs) {
            // A TMPDIR of root's own, as libpam-tmpdir makes it.
            Err(EmbeddedError::OutOfReach { .. }) => short()?,
            made => made?,
        };
        let sockets = match holds_socket(scratch.path()) {
            true => None,
            false => Some(short()?),
        };
        let (data, is_new) = match &kept {
            Some(kept) => (kept.path().to_owned(), kept.is_new()),
            None => (scratch.path().join("data"), true),
        };
        if is_new {
            init(programs, &data, scratch.path(), kept.is_some())?;
        }
        Ok(Self {
            data,
            kept,
            scratch,
            sockets,
        })
    }

    /// Writes who may log in: the caller's lines, then everybody who can reach the socket.
    pub(super) fn write_hba(
        &mut self,
        lines: &[String],
        account: &Account,
    ) -> Result<(), EmbeddedError> {
        let path = self.hba_file();
        let ours = ["local all all trust", "local replication all trust"];
        let text: String = lines
            .iter()
            .map(String::as_str)
            .chain(ours)
            .flat_map(|line| [line, "\n"])
            .collect();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                account.give(&file)
            })
            .tried("write", &path)
    }

    /// From now on a directory made for this cluster stays: its first start went well.
    pub(super) fn keep_what_was_made(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.keep_what_was_made();
        }
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data
    }

    pub(super) fn socket_dir(&self) -> &Path {
        self.sockets.as_ref().unwrap_or(&self.scratch).path()
    }

    pub(super) fn hba_file(&self) -> PathBuf {
        self.scratch.path().join("pg_hba.conf")
    }

    pub(super) fn server_log(&self) -> PathBuf {
        self.data.join("server.log")
    }

    pub(super) fn patience(&self) -> Duration {
        match self.kept {
            Some(_) => KEPT_PATIENCE,
            None => TEMPORARY_PATIENCE,
        }
    }

    /// Removes what is temporary; dropping does the same and ignores errors.
    pub(super) fn remove(&mut self) -> Result<(), EmbeddedError> {
        if let Some(sockets) = &mut self.sockets {
            sockets.remove()?;
        }
        self.scratch.remove()
    }
}

/// Runs `initdb`, from a directory its user can enter; `sync` if the cluster is to outlive a crash.
fn init(
    programs: &Programs,
    data: &Path,
    working_dir: &Path,
    sync: bool,
) -> Result<(), EmbeddedError> {
    // On SIGTERM initdb removes what it has made.
    let mut command = programs.tied("initdb", working_dir, Signal::SIGTERM);
    command
        .arg("-D")
        .arg(data)
        .args(["-U", SUPERUSER, "--auth=trust"])
        .args(["--encoding=UTF8", "--locale=C"]);
    if !sync {
        // Only the empty cluster's files, which are worth nothing after a power cut. The server
        // syncs all it writes.
        command.arg("--no-sync");
    }
    let answer = command
        .output()
        .tried("run", Path::new(command.get_program()))?;
    if answer.status.success() {
        return Ok(());
    }
    let said = match answer.stderr.is_empty() {
        true => &answer.stdout,
        false => &answer.stderr,
    };
    Err(EmbeddedError::Initdb {
        dir: data.to_owned(),
        status: answer.status,
        output: last_lines(&String::from_utf8_lossy(said)),
    })
}

/// Whether every socket name fits into an address, and the directory into a list of hosts.
fn holds_socket(dir: &Path) -> bool {
    let longest = dir.join(".s.PGSQL.65535");
    longest.as_os_str().len() <= SOCKET_PATH_LIMIT
        && dir
            .to_str()
            .is_some_and(|dir| !dir.contains(',') && !dir.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_needs_a_short_path_without_commas() {
        assert!(holds_socket(Path::new("/tmp/pgrung-pg-AbCdEf")));
        assert!(!holds_socket(&Path::new("/tmp").join("x".repeat(90))));
        assert!(!holds_socket(Path::new("/tmp/a,b")));
    }
}
