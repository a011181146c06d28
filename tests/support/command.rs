//! The built command, away from the tester's own settings; how it ended and what it said.

use std::ffi::{OsStr, OsString};
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

use super::Files;
use super::exposition::Exposition;
use super::server::SECRET;

/// No run takes this long; one that does hangs.
const LONGEST_RUN: Duration = Duration::from_secs(170);

/// A command to be run.
#[derive(Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    current_dir: Option<PathBuf>,
    stdin: Option<PathBuf>,
    /// Where output, summary and figures go.
    dir: Arc<Files>,
    /// Whether to ask for `--summary`, which is not looked at of other commands than `load`, `check` and `run`.
    summary: bool,
    /// Time between two figures in a file, where they are asked for.
    figures: Option<&'static str>,
    /// Mounted over this directory, in a place of the command's own: a file system of so many bytes.
    small_disk: Option<(PathBuf, u64)>,
}

/// `pgrung` with these words; stdin is empty.
pub fn pgrung(words: &str) -> Cmd {
    let mut command = Cmd::new(env!("CARGO_BIN_EXE_pgrung")).flags(words);
    command.summary = matches!(words.split(' ').next(), Some("load" | "check" | "run"));
    command
}

/// psql, the judge of what a file holds.
pub fn psql(dsn: &str) -> Cmd {
    let quiet = Cmd::new("psql")
        .flags("-X -q -v ON_ERROR_STOP=1 -d")
        .arg(dsn);
    quiet.env("PGCLIENTENCODING", "UTF8")
}

impl Cmd {
    fn new(program: impl Into<OsString>) -> Self {
        Cmd {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            current_dir: None,
            stdin: None,
            dir: Arc::new(Files::new()),
            summary: false,
            figures: None,
            small_disk: None,
        }
    }

    /// Words without spaces in them.
    pub fn flags(self, words: &str) -> Self {
        self.args(words.split_whitespace())
    }

    pub fn arg(self, word: impl AsRef<OsStr>) -> Self {
        self.args([word])
    }

    pub fn args(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        for word in words {
            // The test's own, instead of ours.
            self.summary &= word.as_ref() != "--summary";
            self.args.push(word.as_ref().to_owned());
        }
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The server, named by `DATABASE_URL`, so that the printed resume command works as it is.
    pub fn dsn(self, dsn: &str) -> Self {
        self.env("DATABASE_URL", dsn)
    }

    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.current_dir = Some(dir.to_owned());
        self
    }

    /// stdin is this file.
    pub fn stdin(mut self, path: &Path) -> Self {
        self.stdin = Some(path.to_owned());
        self
    }

    /// Keeps the figures of the load in a file, anew every so often.
    pub fn with_figures(mut self, every: &'static str) -> Self {
        self.figures = Some(every);
        self
    }

    /// `--overflow spill` to `dir`.
    pub fn spill_to(self, dir: &Path) -> Self {
        self.flags("--overflow spill --spill-dir").arg(dir)
    }

    /// Gives the command a file system of `bytes` at `dir`, which nobody else sees.
    pub fn on_small_disk(mut self, dir: &Path, bytes: u64) -> Self {
        self.small_disk = Some((dir.to_owned(), bytes));
        self
    }

    /// Another program in its place, in the same environment.
    pub fn instead(&self, program: &str) -> Self {
        let mut other = Cmd::new(program);
        other.env.clone_from(&self.env);
        other
    }

    /// As it is, for what the methods below cannot do.
    pub fn command(&self) -> Command {
        let mut command = match &self.small_disk {
            None => Command::new(&self.program),
            Some((dir, bytes)) => {
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "sh", "-c"])
                    .arg(r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#)
                    .args(["sh", &bytes.to_string()])
                    .args([dir.as_os_str(), &self.program]);
                command
            }
        };
        // The tester's connection settings, and what depends on the terminal.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PG") && name != "PGRUNG_PG_BIN" {
                command.env_remove(&*name);
            }
        }
        command
            .env_remove("DATABASE_URL")
            .envs([
                ("HOME", "/nonexistent"),
                ("COLUMNS", "100"),
                ("LC_ALL", "C.UTF-8"),
            ])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(dir) = &self.current_dir {
            command.current_dir(dir);
        }
        command
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.dir.path(&format!("{:x}.{suffix}", fastrand::u64(..)))
    }

    fn start(&self, stdin: Stdio, summary: PathBuf) -> Running {
        let (stdout, stderr) = (self.path("out"), self.path("err"));
        let mut command = self.command();
        if self.summary {
            command.arg("--summary").arg(&summary);
        }
        let figures = self.figures.map(|every| {
            let path = self.path("prom");
            command
                .args(["--report-every", every, "--metrics-file"])
                .arg(&path);
            path
        });
        command
            .stdin(stdin)
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Running {
            pipe: child.stdin.take(),
            child,
            started: Instant::now(),
            stdout,
            stderr,
            summary,
            figures,
            _dir: self.dir.clone(),
        }
    }

    pub fn spawn(&self) -> Running {
        let stdin = match &self.stdin {
            Some(path) => File::open(path).unwrap().into(),
            None => Stdio::null(),
        };
        self.start(stdin, self.path("json"))
    }

    /// Starts it; its stdin is open.
    pub fn open(&self) -> Running {
        self.start(Stdio::piped(), self.path("json"))
    }

    /// Starts it on a source that holds `text` so far.
    pub fn open_with(&self, text: impl AsRef<[u8]>) -> Running {
        let mut running = self.open();
        running.send(text);
        running
    }

    pub fn run(&self) -> Ran {
        self.spawn().wait()
    }

    /// Runs it on a source that holds `text`.
    pub fn run_on(&self, text: impl AsRef<[u8]>) -> Ran {
        self.open_with(text).end()
    }

    /// Runs the command that `ran` printed to go on, in a shell, as its user would.
    pub fn go_on(&self, ran: &Ran) -> Ran {
        let printed = ran
            .stderr
            .lines()
            .find_map(|line| line.split_once("to go on: "));
        let (_, printed) =
            printed.unwrap_or_else(|| panic!("it prints no command to go on: {ran}"));
        let shell = self.instead("sh").args(["-c", printed]);
        shell.start(Stdio::null(), ran.summary_path.clone()).wait()
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    /// Its source, if that is open.
    pub pipe: Option<ChildStdin>,
    started: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
    summary: PathBuf,
    figures: Option<PathBuf>,
    _dir: Arc<Files>,
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

impl Running {
    /// Writes into the pipe; waits while it is full.
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        let pipe = self.pipe.as_mut().expect("the source is open");
        match pipe.write_all(text.as_ref()) {
            // It may have ended already, for what is told by its exit code.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
            _ => {}
        }
    }

    /// The source, for a thread.
    pub fn take_pipe(&mut self) -> ChildStdin {
        self.pipe.take().expect("the source is open")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    #[track_caller]
    pub fn still_runs(&mut self) {
        assert!(!self.has_ended(), "too soon: {}", self.stderr());
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Waits until it says so, or ends.
    #[track_caller]
    pub fn wait_to_say(&mut self, words: &str) {
        super::wait_until(words, || self.has_ended() || self.stderr().contains(words));
    }

    /// Its figures so far; empty before the first are written.
    pub fn figures(&self) -> Exposition {
        Exposition::parse(&self.figures.as_deref().map(read).unwrap_or_default())
    }

    /// Waits until a figure is at least `wanted`.
    #[track_caller]
    pub fn wait_for(&mut self, series: &str, wanted: f64) {
        super::wait_until(series, || {
            let found = self.figures().get(series);
            let ended = self.has_ended();
            assert!(
                !ended,
                "{series} is {found:?}, not {wanted}: {}",
                self.stderr()
            );
            found.is_some_and(|found| found >= wanted)
        });
    }

    /// Kills it, if it has not ended by itself, and waits for its end.
    pub fn kill(mut self) -> Ran {
        self.child.kill().unwrap();
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
        let ran = Ran {
            code: status.code(),
            signal: status.signal(),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
            summary: serde_json::from_str(&read(&self.summary)).ok(),
            summary_path: self.summary.clone(),
            figures: self.figures(),
        };
        ran.keeps_the_rules();
        ran
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process is ended too.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for path in [
            Some(&self.stdout),
            Some(&self.stderr),
            Some(&self.summary),
            self.figures.as_ref(),
        ] {
            let _ = path.map(std::fs::remove_file);
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub summary: Option<Value>,
    summary_path: PathBuf,
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
    /// Of a command whose output went into pipes.
    pub fn of(output: std::process::Output) -> Self {
        let utf8 = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: utf8(output.stdout),
            stderr: utf8(output.stderr),
            summary: None,
            summary_path: PathBuf::new(),
            figures: Exposition::default(),
        };
        ran.keeps_the_rules();
        ran
    }

    /// What holds for every run of every test.
    #[track_caller]
    fn keeps_the_rules(&self) {
        let summary = self
            .summary
            .as_ref()
            .map(Value::to_string)
            .unwrap_or_default();
        for said in [&self.stdout, &self.stderr, &summary] {
            assert!(
                !said.contains(SECRET),
                "the password is in the output: {self}"
            );
        }
        assert!(!self.stderr.contains("panicked"), "{self}");
        // A load that was ended at once does not know; other commands have no rows.
        if let Some(balanced) = self.summary.as_ref().and_then(|told| told.get("balanced")) {
            assert_eq!(balanced, true, "{summary}\n{self}");
        }
    }

    /// Whether every row is explained, by its own word.
    pub fn finished(&self) -> bool {
        matches!(self.code, Some(0 | 3))
    }

    /// Ended with this code.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Died of SIGABRT, as at a point of `PGRUNG_ABORT_AT`.
    #[track_caller]
    pub fn aborted(&self) -> &Self {
        assert_eq!(self.signal, Some(6), "{self}");
        self
    }

    /// Every word is in stderr.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "\"{word}\" is not in: {self}");
        }
        self
    }

    /// stdout has these words.
    #[track_caller]
    pub fn tells(&self, words: &str) -> &Self {
        assert!(self.stdout.contains(words), "{words:?} is not in: {self}");
        self
    }

    /// The rows that stderr says are committed: 0 if the load ended before it began.
    #[track_caller]
    pub fn committed(&self) -> u64 {
        let words = " rows of this run are committed";
        let line = self.stderr.lines().find_map(|line| line.split_once(words));
        let Some((head, _)) = line else {
            assert_eq!(self.stdout, "", "it does not say what is committed: {self}");
            return 0;
        };
        head.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// What `--summary` wrote.
    #[track_caller]
    pub fn summary(&self) -> &Value {
        self.summary
            .as_ref()
            .unwrap_or_else(|| panic!("no summary: {self}"))
    }

    /// A number of the summary, by its path.
    #[track_caller]
    pub fn number(&self, path: &str) -> f64 {
        let found = self.summary().pointer(path).and_then(Value::as_f64);
        found.unwrap_or_else(|| panic!("no {path} in {}", self.summary()))
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

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}
