//! The built command behind a pipe; how it ended and what it said.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::exposition::Exposition;

/// No run takes this long; one that does hangs.
const LONGEST_RUN: Duration = Duration::from_secs(60);

/// The built command, away from the tester's own settings.
pub fn pgrung() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrung"));
    clean(&mut command);
    command
}

fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(&name);
        }
    }
    command
        .env_remove("DATABASE_URL")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8");
}

/// A load of stdin to be run.
#[derive(Clone)]
pub struct Load {
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: Arc<TempDir>,
    report_every: &'static str,
    /// Mounted over this directory, in a place of the loader's own: a file system of so many bytes.
    small_disk: Option<(PathBuf, u64)>,
}

impl Load {
    /// `pgrung load -t table`, with figures every 50 ms.
    pub fn new(dsn: &str, table: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Load {
            args: ["load", "--dsn", dsn, "-t", table, "--no-header"]
                .map(ToOwned::to_owned)
                .to_vec(),
            env: Vec::new(),
            dir,
            report_every: "50ms",
            small_disk: None,
        }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn report_every(mut self, time: &'static str) -> Self {
        self.report_every = time;
        self
    }

    /// `--overflow spill` to `dir`.
    pub fn spill_to(self, dir: &Path) -> Self {
        self.args(&["--overflow", "spill", "--spill-dir", dir.to_str().unwrap()])
    }

    /// Gives the loader a file system of `bytes` at `dir`, which nobody else sees.
    pub fn on_small_disk(mut self, dir: &Path, bytes: u64) -> Self {
        self.small_disk = Some((dir.to_owned(), bytes));
        self
    }

    fn command(&self) -> Command {
        let Some((dir, bytes)) = &self.small_disk else {
            return pgrung();
        };
        let mut command = Command::new("unshare");
        clean(&mut command);
        command
            .args(["--mount", "sh", "-c"])
            .arg(r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#)
            .args(["sh", &bytes.to_string()])
            .arg(dir)
            .arg(env!("CARGO_BIN_EXE_pgrung"));
        command
    }

    /// Starts it; its source is open.
    pub fn spawn(&self) -> Stream {
        let number = fastrand::u64(..);
        let path = |name: &str| self.dir.path().join(format!("{number:x}.{name}"));
        let (stdout, stderr) = (path("out"), path("err"));
        let (summary, metrics) = (path("json"), path("prom"));
        let mut command = self.command();
        command
            .args(&self.args)
            .args(["--report-every", self.report_every])
            .arg("--summary")
            .arg(&summary)
            .arg("--metrics-file")
            .arg(&metrics)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let mut child = command.spawn().unwrap();
        Stream {
            pipe: child.stdin.take(),
            child,
            started: Instant::now(),
            stdout,
            stderr,
            summary,
            metrics,
            _dir: self.dir.clone(),
        }
    }

    /// Runs it on a source that holds `text`.
    pub fn run(&self, text: &str) -> Ran {
        let mut stream = self.spawn();
        stream.send(text);
        stream.end()
    }
}

/// A load whose source is not at its end yet.
pub struct Stream {
    child: Child,
    /// Its source.
    pub pipe: Option<ChildStdin>,
    started: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
    summary: PathBuf,
    metrics: PathBuf,
    _dir: Arc<TempDir>,
}

impl Stream {
    /// Writes into the pipe; waits while it is full.
    pub fn send(&mut self, text: &str) {
        let pipe = self.pipe.as_mut().expect("the source is open");
        match pipe.write_all(text.as_bytes()) {
            // It may have ended already, for what is told by its exit code.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
            _ => {}
        }
    }

    /// The source, for a thread.
    pub fn take_pipe(&mut self) -> ChildStdin {
        self.pipe.take().expect("the source is open")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// Its figures so far; empty before the first are written.
    pub fn figures(&self) -> Exposition {
        Exposition::parse(&std::fs::read_to_string(&self.metrics).unwrap_or_default())
    }

    /// Waits until a figure is at least `wanted`.
    #[track_caller]
    pub fn wait_for(&mut self, series: &str, wanted: f64) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let figures = self.figures();
            if figures.get(series).is_some_and(|found| found >= wanted) {
                return;
            }
            assert!(
                !self.has_ended() && Instant::now() < deadline,
                "{series} is {:?}, not {wanted}: {}",
                figures.get(series),
                self.stderr()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(self) -> Ran {
        self.signal(Signal::SIGKILL);
        self.wait()
    }

    /// Closes the source and waits for the end.
    pub fn end(mut self) -> Ran {
        drop(self.pipe.take());
        self.wait()
    }

    /// Waits for the end without closing the source.
    ///
    /// # Panics
    /// When it hangs.
    pub fn wait(mut self) -> Ran {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > LONGEST_RUN {
                panic!("it hangs: {}", self.stderr());
            }
            thread::sleep(Duration::from_millis(2));
        };
        let read = |path: &Path| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        let ran = Ran {
            code: status.code(),
            signal: status.signal(),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
            summary: serde_json::from_str(&read(&self.summary)).ok(),
            figures: Exposition::parse(&read(&self.metrics)),
        };
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        ran
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a load ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub summary: Option<Value>,
    /// The last figures.
    pub figures: Exposition,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ran {
            code,
            signal,
            stdout,
            stderr,
            ..
        } = self;
        write!(
            f,
            "exit {code:?}, signal {signal:?}\nstdout: {stdout}\nstderr: {stderr}"
        )
    }
}

impl Ran {
    /// Ended with this code, its account balanced.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        if let Some(summary) = &self.summary {
            assert_eq!(summary["balanced"], true, "{self}");
        }
        self
    }

    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "\"{word}\" is not in: {self}");
        }
        self
    }

    /// A number of the summary, by its path.
    #[track_caller]
    pub fn number(&self, path: &str) -> f64 {
        let summary = self.summary.as_ref();
        summary
            .and_then(|summary| summary.pointer(path)?.as_f64())
            .unwrap_or_else(|| panic!("no {path} in the summary: {self}"))
    }

    /// A number of the summary's rows.
    #[track_caller]
    pub fn rows(&self, key: &str) -> u64 {
        self.number(&format!("/rows/{key}")) as u64
    }

    /// Batches closed for a reason.
    #[track_caller]
    pub fn flushes(&self, reason: &str) -> u64 {
        self.number(&format!("/batches/flush/{reason}")) as u64
    }

    /// Wait at the 99th percentile is at most `max_wait_ms`, the commit, and `slack_ms`.
    #[track_caller]
    pub fn waits_at_most(&self, max_wait_ms: f64, slack_ms: f64) -> &Self {
        let wait = self.number("/wait_ms/p99");
        let commit = self.number("/commit_latency_ms/p99");
        assert!(
            wait <= max_wait_ms + commit + slack_ms,
            "wait p99 {wait} ms, commit p99 {commit} ms, max-wait {max_wait_ms} ms: {self}"
        );
        self
    }
}
