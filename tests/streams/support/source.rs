//! Sources: rows with a number and the time at which they are written, at a given pace.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// `count` rows from number `first` on, written now.
pub fn rows(first: u64, count: u64) -> String {
    padded_rows(first, count, "")
}

/// The same with `padding` in each row.
pub fn padded_rows(first: u64, count: u64, padding: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut text = String::new();
    for id in first..first + count {
        writeln!(text, "{id},{},row {id};{padding}", now.as_micros()).unwrap();
    }
    text
}

/// A thread that writes rows into a pipe.
pub struct Feed {
    thread: JoinHandle<Fed>,
    enough: Arc<AtomicBool>,
}

/// What a thread has written.
#[derive(Default)]
pub struct Fed {
    /// Rows written as a whole.
    pub rows: u64,
    /// What was written, of which a broken pipe has not taken the end; nothing where rows have
    /// padding.
    pub text: String,
}

impl Feed {
    /// Writes `rows_per_second` in ticks of 10 ms, from row 1 to row `last`, until the pipe breaks or
    /// it is enough; then the source ends. Late ticks are caught up, a second's rows at a time.
    pub fn steady(mut pipe: ChildStdin, last: u64, rows_per_second: u64, padding: String) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let heard = enough.clone();
        let thread = thread::spawn(move || {
            let begin = Instant::now();
            let mut fed = Fed::default();
            while fed.rows < last && !heard.load(Ordering::Relaxed) {
                let due = begin.elapsed().as_millis() as u64 * rows_per_second / 1000 + 1;
                let count = due.min(last).saturating_sub(fed.rows);
                if count == 0 {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
                let count = count.min(rows_per_second);
                let tick = padded_rows(fed.rows + 1, count, &padding);
                let broken = pipe.write_all(tick.as_bytes()).is_err();
                if padding.is_empty() {
                    fed.text.push_str(&tick);
                }
                if broken {
                    break;
                }
                fed.rows += count;
            }
            fed
        });
        Feed { thread, enough }
    }

    /// Waits until all is written.
    pub fn finish(self) -> Fed {
        self.thread.join().unwrap()
    }

    /// Writes no more.
    pub fn stop(self) -> Fed {
        self.enough.store(true, Ordering::Relaxed);
        self.finish()
    }
}
