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
pub struct Fed {
    /// Rows written as a whole.
    pub rows: u64,
    /// All bytes that the pipe took, if it broke; it keeps what fits into it.
    pub text: String,
    /// The pipe, if it is not broken.
    pub pipe: Option<ChildStdin>,
}

impl Feed {
    /// Writes `rows_per_second` in ticks of 10 ms, from row `first` on, until the pipe breaks, or
    /// `last` is written, or it is enough. Late ticks are caught up.
    pub fn steady(
        mut pipe: ChildStdin,
        first: u64,
        last: u64,
        rows_per_second: u64,
        padding: String,
    ) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let heard = enough.clone();
        let thread = thread::spawn(move || {
            let begin = Instant::now();
            let mut next = first;
            let mut text = String::new();
            while next <= last && !heard.load(Ordering::Relaxed) {
                let due = begin.elapsed().as_millis() as u64 * rows_per_second / 1000 + 1;
                let count = (first + due).min(last + 1).saturating_sub(next);
                if count == 0 {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
                // No more than a second at once: after a stall the time of writing stays true.
                let count = count.min(rows_per_second.max(1));
                let tick = padded_rows(next, count, &padding);
                if pipe.write_all(tick.as_bytes()).is_err() {
                    text.push_str(&tick);
                    return Fed {
                        rows: next - first,
                        text,
                        pipe: None,
                    };
                }
                if padding.is_empty() {
                    text.push_str(&tick);
                }
                next += count;
            }
            Fed {
                rows: next - first,
                text,
                pipe: Some(pipe),
            }
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
