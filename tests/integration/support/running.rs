//! A load whose source is not at its end.

use std::io::{ErrorKind, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::{Ran, finish};

/// Small batches that do not wait long, one after the other.
pub const SMALL: [&str; 6] = ["--batch-rows", "10", "--max-wait", "20ms", "-j", "1"];

/// `id,name` rows, the first one numbered `first`.
pub fn rows(first: u64, count: u64) -> String {
    (first..first + count)
        .map(|id| format!("{id},name {id}\n"))
        .collect()
}

/// A load whose source is not at its end yet.
pub struct Running {
    pub child: Child,
    stdin: ChildStdin,
}

impl Running {
    /// Starts `command` with these rows at hand.
    pub fn start(command: &mut Command, rows: &str) -> Self {
        let mut child = command
            .arg("--no-header")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut running = Running { child, stdin };
        running.send(rows);
        running
    }

    pub fn send(&mut self, rows: &str) {
        match self.stdin.write_all(rows.as_bytes()) {
            // It may have ended already, for what is told by its exit code.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
            _ => {}
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the end without closing the source.
    pub fn finish(self) -> Ran {
        let Running { child, stdin } = self;
        let ran = finish(child);
        drop(stdin);
        ran
    }

    /// Closes the source and waits for the end.
    pub fn close(self) -> Ran {
        drop(self.stdin);
        finish(self.child)
    }

    /// The end of a load that must come soon; one that does not is killed.
    pub fn finish_within(mut self, time: Duration) -> Ran {
        let deadline = Instant::now() + time;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                let ran = self.finish();
                panic!("still running after {time:?}: {ran}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.finish()
    }
}
