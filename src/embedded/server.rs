//! Runs the server process: starts it, waits until it takes connections, ends it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cluster::Cluster;
use super::error::{EmbeddedError, Tried, last_lines};
use super::programs::Programs;

/// How long a starting server may write nothing to its log. Not a limit on the start as a whole:
/// recovery after a crash may take longer, and from PostgreSQL 15 on it reports every 10 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// A server looks whether its processes answer an immediate shutdown and kills them after 5 s.
const IMMEDIATE_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at the server; a start takes some 100 ms.
const POLL: Duration = Duration::from_millis(5);

/// How much of a log is read for the lines that an error carries.
const LOG_BYTES: u64 = 16 * 1024;

/// A running server process.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// Dropped last: ends the thread that started the process, see [`spawn_held`].
    _hold: Sender<()>,
}

impl Server {
    /// Starts the server and returns once it takes connections.
    pub(super) fn start(
        programs: &Programs,
        cluster: &Cluster,
        settings: &[(String, String)],
        port: u16,
    ) -> Result<Self, EmbeddedError> {
        let log_path = cluster.server_log();
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            // Under root: the directory is another user's, who could have put a link here.
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&log_path)
            .tried("open", &log_path)?;
        programs
            .account()
            .give(&log)
            .tried("change the owner of", &log_path)?;
        let log_start = log.metadata().tried("examine", &log_path)?.len();

        // A fast shutdown if we die: a kept cluster then needs no recovery.
        let mut command = programs.tied("postgres", cluster.data_dir(), Signal::SIGINT);
        command.arg("-D").arg(cluster.data_dir());
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let program = programs.bin_dir().join("postgres");
        let output = log.try_clone().tried("open", &log_path)?;
        command.stdout(output).stderr(log);
        let (child, hold) = spawn_held(command).tried("run", &program)?;
        let mut server = Self { child, _hold: hold };
        server.wait_until_ready(cluster, log_start, port)?;
        Ok(server)
    }

    /// The process id. The process is not reaped while this value lives unstopped, so it is ours.
    pub(super) fn pid(&self) -> i32 {
        // Process ids are positive `pid_t`; the standard library only widens them.
        self.child.id().cast_signed()
    }

    fn wait_until_ready(
        &mut self,
        cluster: &Cluster,
        log_start: u64,
        port: u16,
    ) -> Result<(), EmbeddedError> {
        let log_path = cluster.server_log();
        let socket = cluster.socket_dir().join(format!(".s.PGSQL.{port}"));
        let mut log_length = log_start;
        let mut last_sign = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().tried("wait for", &log_path)? {
                return Err(EmbeddedError::Died {
                    status,
                    log: log_tail(&log_path, log_start),
                });
            }
            if says_ready(cluster.data_dir(), self.pid()) && socket.exists() {
                return Ok(());
            }
            let length = fs::metadata(&log_path).map_or(log_length, |metadata| metadata.len());
            if length != log_length {
                log_length = length;
                last_sign = Instant::now();
            }
            if last_sign.elapsed() > SILENCE_LIMIT {
                self.stop(true, Duration::ZERO)?;
                return Err(EmbeddedError::NotReady {
                    seconds: SILENCE_LIMIT.as_secs(),
                    log: log_tail(&log_path, log_start),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Asks for a shutdown, fast unless `immediate`, then insists; returns once the process is gone.
    /// `patience` is how long a fast shutdown may take. Nothing happens if the process has ended.
    pub(super) fn stop(
        &mut self,
        immediate: bool,
        patience: Duration,
    ) -> Result<(), EmbeddedError> {
        let steps = [
            (Signal::SIGINT, patience),
            (Signal::SIGQUIT, IMMEDIATE_PATIENCE),
            // Its processes notice that it is gone and end by themselves.
            (Signal::SIGKILL, IMMEDIATE_PATIENCE),
        ];
        let pid = self.pid();
        for (signal, patience) in steps.into_iter().skip(usize::from(immediate)) {
            if self.has_ended() {
                return Ok(());
            }
            // Not reaped yet, so the number is still this process.
            let _ = kill(Pid::from_raw(pid), signal);
            let deadline = Instant::now() + patience;
            while !self.has_ended() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
        match self.has_ended() {
            true => Ok(()),
            false => Err(EmbeddedError::Unstoppable(pid)),
        }
    }

    fn has_ended(&mut self) -> bool {
        // An error means that there is no such child any more.
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop(true, Duration::ZERO);
    }
}

/// Spawns from a thread that lasts until the returned sender is dropped.
///
/// The death signal is sent when the *thread* that spawned the process ends. The caller's may well
/// end before the server: a pool's worker, a test. This one ends only with us or with the server.
fn spawn_held(mut command: Command) -> io::Result<(Child, Sender<()>)> {
    let (child_sender, child) = sync_channel(1);
    let (hold, until_dropped) = channel::<()>();
    thread::Builder::new()
        .name("pgrung-postgres".to_owned())
        .spawn(move || {
            // Received below, unless that thread is gone; then the process goes with this one.
            let _ = child_sender.send(command.spawn());
            let _ = until_dropped.recv();
        })?;
    let child = child
        .recv()
        .map_err(|_| io::Error::other("the thread that starts it ended"))??;
    Ok((child, hold))
}

/// Whether `postmaster.pid` is this process's and its status, the eighth line, says that it takes
/// connections.
fn says_ready(data: &Path, pid: i32) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return false;
    };
    let mut lines = text.lines().map(str::trim);
    lines.next() == Some(pid.to_string().as_str())
        && matches!(lines.nth(6), Some("ready" | "standby"))
}

/// The end of what the log has gained since byte `start`.
fn log_tail(path: &Path, start: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(LOG_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(last_lines(&String::from_utf8_lossy(&bytes)))
    };
    match read() {
        Ok(text) if text.is_empty() => "(nothing)".to_owned(),
        Ok(text) => text,
        Err(error) => format!("({} cannot be read: {error})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_the_last_lines_of_this_start_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        let before = "an earlier run\n";
        let after: String = (0..30).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, format!("{before}{after}")).unwrap();
        let tail = log_tail(&path, before.len() as u64);
        assert!(tail.starts_with("line 10\n"), "{tail}");
        assert!(tail.ends_with("line 29"), "{tail}");
        fs::write(&path, before).unwrap();
        assert_eq!(log_tail(&path, before.len() as u64), "(nothing)");
    }

    #[test]
    fn only_this_process_and_only_its_status_count_as_ready() {
        let dir = tempfile::tempdir().unwrap();
        let write = |status: &str| {
            let text = format!("12\n/data\n1700000000\n5432\n/tmp\n\n  1 2\n{status}\n");
            fs::write(dir.path().join("postmaster.pid"), text).unwrap();
        };
        assert!(!says_ready(dir.path(), 12));
        write("starting");
        assert!(!says_ready(dir.path(), 12));
        write("ready   ");
        assert!(says_ready(dir.path(), 12));
        assert!(!says_ready(dir.path(), 13));
    }
}
