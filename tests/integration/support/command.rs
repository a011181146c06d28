//! The built command, away from the tester's own settings; its exit code and output.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;

use serde_json::Value;

use super::server::SECRET;

/// How a command ended and what it said.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ran {
            code,
            stdout,
            stderr,
        } = self;
        write!(f, "exit {code:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

impl Ran {
    fn of(status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Self {
        let ran = Ran {
            code: status.code(),
            stdout: String::from_utf8(stdout.to_vec()).unwrap(),
            stderr: String::from_utf8(stderr.to_vec()).unwrap(),
        };
        assert!(
            !ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET),
            "the password is in the output: {ran}"
        );
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        ran
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
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
        let line = self
            .stderr
            .lines()
            .find_map(|line| line.split_once(" rows of this run are committed"));
        let Some((head, _)) = line else {
            assert_eq!(self.stdout, "", "it does not say what is committed: {self}");
            return 0;
        };
        let number = head.rsplit(' ').next().unwrap();
        number.parse().unwrap()
    }
}

/// Takes the tester's connection settings away and nails down what depends on the terminal.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("PG") && name != "PGRUNG_PG_BIN" {
            command.env_remove(&*name);
        }
    }
    command
        .env_remove("DATABASE_URL")
        .env("HOME", "/nonexistent")
        .env("COLUMNS", "100")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
}

/// The command, without arguments yet; stdin is empty.
pub fn pgrung() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrung"));
    clean(&mut command);
    command
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Ran::of(status, &stdout, &stderr)
}

/// Runs to the end, writing `input` to its stdin meanwhile.
pub fn run_with_stdin(command: &mut Command, input: impl AsRef<[u8]> + Send + 'static) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || match stdin.write_all(input.as_ref()) {
        // It need not read to the end.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
        _ => {}
    });
    let ran = finish(child);
    writer.join().unwrap();
    ran
}

/// Waits for the end of a command that runs.
pub fn finish(child: Child) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    Ran::of(status, &stdout, &stderr)
}

/// What `--summary` wrote.
pub fn summary(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    serde_json::from_str(&text).unwrap()
}
