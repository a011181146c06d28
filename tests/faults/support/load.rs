//! The built command, away from the tester's own settings; how it ended and what it said.

use std::fmt;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// No run takes this long; one that does hangs.
const LONGEST_RUN: Duration = Duration::from_secs(170);

/// One command to be run.
#[derive(Debug, Clone)]
pub struct Load {
    pub dsn: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub stdin: Option<PathBuf>,
    /// Where output and summary go.
    dir: PathBuf,
    /// Whether to ask for `--summary`.
    is_load: bool,
}

impl Load {
    /// `pgrung load -t table file`.
    pub fn new(dsn: &str, table: &str, file: Option<&Path>, dir: &Path) -> Self {
        let mut load = Self::other(dsn, &["load", "-t", table, "--progress", "none"], dir);
        load.is_load = true;
        if let Some(file) = file {
            load.args.push(file.to_str().unwrap().to_owned());
        }
        load
    }

    /// Another command of `pgrung`.
    pub fn other(dsn: &str, args: &[&str], dir: &Path) -> Self {
        Load {
            dsn: dsn.to_owned(),
            args: args.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            stdin: None,
            dir: dir.to_owned(),
            is_load: false,
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

    pub fn dsn(mut self, dsn: &str) -> Self {
        dsn.clone_into(&mut self.dsn);
        self
    }

    pub fn stdin(mut self, path: &Path) -> Self {
        self.stdin = Some(path.to_owned());
        self
    }

    /// The command itself. The server is named by `DATABASE_URL`, so that the printed resume
    /// command works as it is.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrung"));
        clean(&mut command);
        command.env("DATABASE_URL", &self.dsn).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn spawn(&self) -> Running {
        self.spawn_command(self.command())
    }

    fn spawn_command(&self, mut command: Command) -> Running {
        let number = fastrand::u64(..);
        let summary = self.dir.join(format!("{number:x}.json"));
        if self.is_load {
            command.arg("--summary").arg(&summary);
        }
        self.spawn_with(command, summary)
    }

    fn spawn_with(&self, mut command: Command, summary: PathBuf) -> Running {
        let number = fastrand::u64(..);
        let path = |name: &str| self.dir.join(format!("{number:x}.{name}"));
        let (stdout, stderr) = (path("out"), path("err"));
        command
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        match &self.stdin {
            Some(path) => command.stdin(File::open(path).unwrap()),
            None => command.stdin(Stdio::null()),
        };
        Running {
            child: command.spawn().unwrap(),
            started: Instant::now(),
            stdout,
            stderr,
            summary,
        }
    }

    pub fn run(&self) -> Ran {
        self.spawn().wait()
    }

    /// Runs the command that `ran` printed to go on, in a shell, as its user would.
    pub fn go_on(&self, ran: &Ran) -> Ran {
        let mut shell = Command::new("sh");
        clean(&mut shell);
        shell
            .args(["-c", &ran.resume_command()])
            .env("DATABASE_URL", &self.dsn);
        self.spawn_with(shell, ran.summary_path.clone()).wait()
    }
}

/// Takes the tester's connection settings away.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PG") {
            command.env_remove(&name);
        }
    }
    command
        .env_remove("DATABASE_URL")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8");
}

/// A command that runs.
pub struct Running {
    child: Child,
    started: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
    summary: PathBuf,
}

impl Running {
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

    /// # Panics
    /// When it hangs.
    pub fn wait(mut self) -> Ran {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > LONGEST_RUN {
                let _ = self.child.kill();
                let _ = self.child.wait();
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
            summary_path: self.summary.clone(),
        };
        for path in [&self.stdout, &self.stderr, &self.summary] {
            let _ = std::fs::remove_file(path);
        }
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        ran
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process is ended too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub summary: Option<Value>,
    summary_path: PathBuf,
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
    /// Whether every row is explained, by its own word.
    pub fn finished(&self) -> bool {
        matches!(self.code, Some(0 | 3))
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "\"{word}\" is not in: {self}");
        }
        self
    }

    /// A number of the summary's rows.
    #[track_caller]
    pub fn rows(&self, key: &str) -> u64 {
        self.summary
            .as_ref()
            .and_then(|summary| summary["rows"][key].as_u64())
            .unwrap_or_else(|| panic!("no summary: {self}"))
    }

    /// The command after "to go on: ".
    #[track_caller]
    pub fn resume_command(&self) -> String {
        self.stderr
            .lines()
            .find_map(|line| line.split_once("to go on: "))
            .map(|(_, command)| command.to_owned())
            .unwrap_or_else(|| panic!("it prints no command to go on: {self}"))
    }
}
