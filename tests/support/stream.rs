//! Streams: a table for rows that carry their number, and sources that write them at a given pace.

use std::fmt::Write as _;
use std::io::Write;
use std::ops::Deref;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::command::Cmd;
use super::server::{Database, Server};

/// A database with the table `t`, the one of most streams.
pub struct Sink(Arc<Database>);

impl Deref for Sink {
    type Target = Arc<Database>;

    fn deref(&self) -> &Arc<Database> {
        &self.0
    }
}

impl Sink {
    pub fn new() -> Self {
        Self::on(&Server::shared())
    }

    pub fn on(server: &Arc<Server>) -> Self {
        let sink = Sink(Database::on(server));
        sink.table("t");
        sink
    }

    /// Makes another table for rows. No unique key, so that a row stored twice shows.
    pub fn table(&self, name: &str) {
        self.run(&format!(
            "CREATE TABLE {name} (id bigint, sent_us bigint, payload text)"
        ));
    }

    /// `pgrung load -t t` with figures every 50 ms, ready for more flags.
    pub fn load(&self) -> Cmd {
        self.load_into("t")
    }

    pub fn load_into(&self, table: &str) -> Cmd {
        self.load_once(table)
            .arg("--no-header")
            .with_figures("50ms")
    }

    #[track_caller]
    pub fn count(&self) -> u64 {
        self.0.count("t")
    }

    #[track_caller]
    pub fn count_of(&self, table: &str) -> u64 {
        self.0.count(table)
    }

    /// The table holds the rows 1 to `last`, each once and as it was written.
    #[track_caller]
    pub fn holds(&self, last: u64) {
        self.table_holds("t", 1, last);
    }

    /// `table` holds the rows `first` to `last`, each once and as it was written.
    #[track_caller]
    pub fn table_holds(&self, table: &str, first: u64, last: u64) {
        let found = self.one(&format!(
            "SELECT count(*), count(DISTINCT id), coalesce(min(id), {first}), coalesce(max(id), {last}),
                    count(*) FILTER (WHERE payload NOT LIKE 'row ' || id || ';%') FROM {table}"
        ));
        let count = last + 1 - first;
        let expected = format!("{count}|{count}|{first}|{last}|0");
        assert_eq!(found, expected, "{table}: rows, ids, first, last, altered");
    }

    /// No row is there twice, or otherwise than it was written.
    #[track_caller]
    pub fn holds_no_row_twice(&self) {
        let found = self.one(
            "SELECT count(*) - count(DISTINCT id),
                    count(*) FILTER (WHERE payload NOT LIKE 'row ' || id || ';%') FROM t",
        );
        assert_eq!(found, "0|0", "rows twice, rows altered");
    }
}

/// `count` rows from number `first` on, written now.
pub fn rows(first: u64, count: u64) -> String {
    padded_rows(first, count, "")
}

/// The same with `padding` in each row.
fn padded_rows(first: u64, count: u64, padding: &str) -> String {
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
    pub fn steady(mut pipe: ChildStdin, last: u64, rows_per_second: u64, padding: &str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (heard, padding) = (enough.clone(), padding.to_owned());
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

    /// Whether all is written.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
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

/// Writes all of `text` from a thread of its own, as far as it is taken.
pub fn write_aside(
    mut pipe: ChildStdin,
    text: impl AsRef<[u8]> + Send + 'static,
) -> JoinHandle<std::io::Result<()>> {
    thread::spawn(move || pipe.write_all(text.as_ref()))
}
