//! How evenly arriving rows fill the window, and how long each then waits.

use std::time::Duration;

use super::{PlannedBatch, Request, WaitMillis};
use crate::window::{FlushReason, Window};

/// Slack in counts of rows for numbers such as 0.1 that binary fractions miss.
const SLACK: f64 = 1e-6;

/// Seconds after which a trigger is not worth naming: some 11 days.
const NEVER: f64 = 1e6;

/// Rows that arrive evenly at a window.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    rate: f64,
    row_bytes: f64,
    window: Window,
}

impl Arrival {
    pub fn of(request: &Request) -> Self {
        Arrival {
            rate: request.rows_per_second,
            row_bytes: request.row_bytes,
            window: request.window,
        }
    }

    /// The same rows at a window that closes by bytes and wait only.
    pub fn without_row_limit(mut self) -> Self {
        self.window.rows = usize::MAX;
        self
    }

    /// Rows that fit into the window's bytes; the first always does.
    fn fitting_rows(&self) -> f64 {
        (self.window.bytes as f64 / self.row_bytes + SLACK)
            .floor()
            .max(1.0)
    }

    /// Rows of a batch that is full by rows or by bytes.
    pub fn full_rows(&self) -> f64 {
        self.fitting_rows().min(self.window.rows as f64)
    }

    /// Rows of a batch that closes after `wait`: those that arrive before.
    pub fn rows_within(&self, wait: Duration) -> f64 {
        (self.rate * wait.as_secs_f64() - SLACK)
            .ceil()
            .clamp(1.0, self.full_rows())
    }

    /// Seconds from the first row until `rows` rows, until the bytes, until the wait close the
    /// batch.
    fn seconds(&self) -> [(FlushReason, f64); 3] {
        // The first row comes at 0, so the nth comes after n - 1 gaps.
        let rows = (self.window.rows as f64 - 1.0) / self.rate;
        let fitting = self.fitting_rows();
        let bytes = if fitting * self.row_bytes >= self.window.bytes as f64 - SLACK {
            (fitting - 1.0) / self.rate
        } else {
            // The row that no longer fits closes the batch.
            fitting / self.rate
        };
        let wait = self
            .window
            .wait
            .map_or(f64::INFINITY, |wait| wait.as_secs_f64());
        [
            (FlushReason::Wait, wait),
            (FlushReason::Rows, rows),
            (FlushReason::Bytes, bytes),
        ]
    }

    /// The trigger that fires first, and when, in seconds. On a tie the wait comes before the rows
    /// and the rows before the bytes, as in the window.
    fn first(&self) -> (FlushReason, f64) {
        let [mut first, rows, bytes] = self.seconds();
        for other in [rows, bytes] {
            if other.1 < first.1 {
                first = other;
            }
        }
        first
    }

    /// The batch that the window makes.
    pub fn batch(&self) -> PlannedBatch {
        let (trigger, seconds) = self.first();
        let rows = match trigger {
            FlushReason::Wait => self.window.wait.map_or(1.0, |wait| self.rows_within(wait)),
            _ => self.full_rows(),
        };
        let bytes = rows * self.row_bytes;
        let fill = (rows / self.window.rows as f64)
            .max(bytes / self.window.bytes as f64)
            .min(1.0);
        PlannedBatch {
            trigger: trigger.name(),
            because: self.because(trigger),
            rows: rows as u64,
            bytes: bytes as u64,
            fill_percent: fill * 100.0,
            fill_ms: seconds * 1e3,
            per_second: self.rate / rows,
        }
    }

    fn because(&self, trigger: FlushReason) -> String {
        let mut others = Vec::new();
        let mut own = String::new();
        for (reason, seconds) in self.seconds() {
            let text = match reason {
                FlushReason::Wait => "max-wait",
                FlushReason::Rows => "batch-rows",
                _ => "batch-bytes",
            };
            if reason == trigger {
                own = format!("{text} is reached after {}", brief(seconds));
            } else if seconds < NEVER {
                others.push(format!("{text} only after {}", brief(seconds)));
            }
        }
        if others.is_empty() {
            return own;
        }
        format!("{own}, {}", others.join(" and "))
    }

    /// Waits of the rows of a batch whose transaction takes `seconds`: what is left of the filling
    /// when the row arrives, and the transaction.
    pub fn wait(&self, seconds: f64) -> WaitMillis {
        let batch = self.batch();
        // From the first row to the last.
        let spread = (batch.rows as f64 - 1.0) / self.rate * 1e3;
        let first_row = batch.fill_ms + seconds * 1e3;
        WaitMillis {
            p50: first_row - spread * 0.5,
            p99: first_row - spread * 0.01,
            first_row,
        }
    }
}

/// A time for people: two or three digits.
pub fn brief(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < NEVER => format!("{:.0} h", s / 3600.0),
        _ => "a very long time".to_string(),
    }
}
