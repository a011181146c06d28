//! One input and one table, and the checker: after a fault and its resume, table plus rejects must
//! be the input, and everybody who counts must agree.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::command::{Cmd, Ran, Running};
use super::input::{Fate, Input, table_sql};
use super::server::Database;
use super::{Files, tally, wait_until};

/// Resumes after one fault. Five are promised to be enough for any test here.
const RESUMES: usize = 5;

/// How long the server may take to notice that a loader is gone.
const LEFT_OVER_LIMIT: Duration = Duration::from_secs(10);

/// One input, one table.
pub struct Case {
    pub database: Arc<Database>,
    pub table: String,
    pub input: Input,
    pub file: PathBuf,
    pub files: Files,
    pub unlogged: bool,
}

/// What the checker found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub lost: u64,
    pub doubled: u64,
    pub faults: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.faults.is_empty()
    }

    /// Counts a fault that was tried, and fails if it cost anything.
    #[track_caller]
    pub fn survives(&self, fault: &str) {
        tally::note(fault, self.lost, self.doubled);
        assert!(self.is_clean(), "{fault}: {self:#?}");
    }

    fn expect<T: PartialEq + fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.faults
                .push(format!("{what}: {found:?}, should be {expected:?}"));
        }
    }
}

impl Case {
    /// A fresh table, and a file of the input.
    pub fn new(database: &Arc<Database>, input: Input) -> Self {
        Self::with(database, input, false)
    }

    pub fn with(database: &Arc<Database>, input: Input, unlogged: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let table = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        database.run(&table_sql(&table, unlogged));
        let files = Files::new();
        let file = files.path("input.csv");
        std::fs::write(&file, input.bytes()).unwrap();
        Case {
            database: database.clone(),
            table,
            input,
            file,
            files,
            unlogged,
        }
    }

    /// The load of the file.
    pub fn load(&self) -> Cmd {
        self.load_of(&self.file)
    }

    pub fn load_by(&self, strategy: &str) -> Cmd {
        self.load().args(["--strategy", strategy])
    }

    /// The load of `file` instead of the case's own.
    pub fn load_of(&self, file: &Path) -> Cmd {
        self.load_stdin().arg(file)
    }

    /// The load of stdin.
    pub fn load_stdin(&self) -> Cmd {
        self.database
            .load_once(&self.table)
            .flags("--progress none")
    }

    /// Makes every twentieth row take 10 ms, whatever the strategy, so that a fault hits a load that
    /// still runs. A trigger after each row keeps none out.
    pub fn slow_down(&self) {
        let table = &self.table;
        self.database.run(&format!(
            "CREATE FUNCTION slow_{table}() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(0.01); RETURN NULL; END';
             CREATE TRIGGER slow AFTER INSERT ON {table} FOR EACH ROW WHEN (NEW.id % 20 = 0)
             EXECUTE FUNCTION slow_{table}()"
        ));
    }

    /// Waits until so many batches are committed; the load must still run then.
    #[track_caller]
    pub fn in_mid_load(&self, running: &mut Running, batches: i64) {
        wait_until("a few batches", || {
            running.has_ended() || self.spans() >= batches
        });
        running.still_runs();
    }

    pub fn rows(&self) -> i64 {
        self.database
            .number(&format!("SELECT count(*) FROM {}", self.table))
    }

    /// Batches that the ledger has committed so far; 0 before there is a ledger.
    pub fn spans(&self) -> i64 {
        self.sum_of_spans("count(*)")
    }

    /// Of the spans of this case; 0 before there is a ledger.
    fn sum_of_spans(&self, sum: &str) -> i64 {
        match self.has_ledger() {
            true => self.database.number(&self.of_ledger(sum, "spans")),
            false => 0,
        }
    }

    fn has_ledger(&self) -> bool {
        // What its one migration makes last.
        let made = "SELECT count(*) FROM pg_class WHERE relname = 'unlogged_rejects'";
        self.database.number(made) > 0
    }

    /// A query of what the ledger holds of this case in `table`.
    pub fn of_ledger(&self, columns: &str, table: &str) -> String {
        let prefix = if self.unlogged { "unlogged_" } else { "" };
        format!(
            "SELECT {columns} FROM pgrung.{prefix}{table} JOIN pgrung.imports USING (import_id)
             WHERE target LIKE '%\"{}\"'",
            self.table
        )
    }

    /// Runs `load` directly at the server until it says that it is done, then checks. `first` is
    /// how the run with the fault ended.
    #[track_caller]
    pub fn recover(&self, fault: &str, first: Ran, load: &Cmd) -> Ran {
        let mut last = first;
        for _ in 0..RESUMES {
            if last.finished() {
                break;
            }
            self.between(fault, &last);
            last = load.run();
        }
        self.survived(fault, &last);
        last
    }

    /// After a run that did not finish: nothing stored that the ledger does not know, and no
    /// success claimed.
    #[track_caller]
    pub fn between(&self, fault: &str, ran: &Ran) {
        let known = match ran.code {
            Some(1 | 4 | 5 | 6 | 130 | 143) => true,
            Some(_) => false,
            None => matches!(ran.signal, Some(6 | 9)),
        };
        assert!(known, "{fault}: {ran}");
        self.nothing_left_over(fault);
        let claimed = self.sum_of_spans("coalesce(sum(loaded), 0)::bigint");
        assert_eq!(
            self.rows(),
            claimed,
            "{fault}: rows, and in the ledger\n{ran}"
        );
    }

    /// Fails if not every row is there exactly once, or explained.
    #[track_caller]
    pub fn exact(&self, when: &str, last: &Ran) {
        let verdict = self.verdict(last);
        assert!(verdict.is_clean(), "{when}: {verdict:#?}\n{last}");
    }

    /// The same after a fault, which counts as one that was tried.
    #[track_caller]
    pub fn survived(&self, fault: &str, last: &Ran) {
        self.verdict(last).survives(fault);
    }

    /// What the checker finds after `last`, a run that says it is done.
    pub fn verdict(&self, last: &Ran) -> Verdict {
        let mut verdict = self.stored();
        let bad = self.input.bad_count();
        let good = self.input.lines.len() as u64 - bad;
        let rejected_code = if bad > 0 { 3 } else { 0 };
        verdict.expect("exit code", last.code, Some(rejected_code));
        if last.finished() {
            verdict.expect("rows read", last.rows("read"), good + bad);
            let loaded = last.rows("loaded") + last.rows("already_loaded");
            verdict.expect("rows loaded", loaded, good);
            verdict.expect("rows rejected", last.rows("rejected"), bad);
            verdict.expect("rows suppressed", last.rows("suppressed"), 0);
            verdict.expect("rows dropped", last.rows("dropped"), 0);
        }
        if !verdict.is_clean() {
            verdict.faults.push(format!("the last run: {last}"));
        }
        verdict
    }

    /// What the checker finds in the database alone.
    pub fn stored(&self) -> Verdict {
        let mut verdict = Verdict::default();
        self.check_table(&mut verdict);
        self.check_rejects(&mut verdict);
        self.check_spans(&mut verdict);
        verdict
    }

    /// Compares the table with the rows whose fate is good.
    pub fn check_table(&self, verdict: &mut Verdict) {
        let mut stored: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        let sql = format!("SELECT id, payload FROM {}", self.table);
        for row in self.database.query(&sql) {
            stored.entry(row.get(0)).or_default().push(row.get(1));
        }
        for line in &self.input.lines {
            let found = stored.remove(&line.id).unwrap_or_default();
            match line.fate {
                Fate::Good => match found.len() {
                    0 => verdict.lost += 1,
                    1 => {}
                    more => verdict.doubled += more as u64 - 1,
                },
                Fate::Bad(_) => verdict.expect("copies of a bad row", found.len(), 0),
            }
            if line.fate == Fate::Good && found.iter().any(|payload| *payload != line.payload) {
                verdict.faults.push(format!("another payload: {found:?}"));
            }
        }
        if !stored.is_empty() {
            verdict.faults.push(format!("rows of no input: {stored:?}"));
        }
    }

    /// Compares the rejects with the planted ones: original bytes, position, SQLSTATE.
    pub fn check_rejects(&self, verdict: &mut Verdict) {
        let columns = "original, record, line, start_byte, end_byte, sqlstate";
        let sql = self.of_ledger(columns, "rejects") + " AND replayed_at IS NULL";
        let mut found: BTreeMap<Vec<u8>, Vec<([i64; 4], String)>> = BTreeMap::new();
        for row in self.database.query(&sql) {
            let reject = ([1, 2, 3, 4].map(|index| row.get(index)), row.get(5));
            found.entry(row.get(0)).or_default().push(reject);
        }
        let mut line_number = 2;
        let mut at = super::input::HEADER.len();
        for (line, record) in self.input.lines.iter().zip(1i64..) {
            let end = at + line.original.len();
            if let Fate::Bad(kind) = line.fate {
                let rejects = found.remove(&line.original).unwrap_or_default();
                match rejects.len() {
                    0 => verdict.lost += 1,
                    more => verdict.doubled += more as u64 - 1,
                }
                let place = [record, line_number, at as i64, end as i64];
                let expected = (place, kind.sqlstate().to_owned());
                if let Some(found) = rejects.first() {
                    verdict.expect("position and SQLSTATE of a reject", found, &expected);
                }
            }
            line_number += line.original.iter().filter(|byte| **byte == b'\n').count() as i64;
            at = end;
        }
        for (original, why) in &found {
            let original = String::from_utf8_lossy(original);
            let fault = format!("a good row is rejected: {original:?} {why:?}");
            verdict.faults.push(fault);
        }
    }

    /// Checks that the spans cover the input once, and sum up to what is stored.
    pub fn check_spans(&self, verdict: &mut Verdict) {
        let columns = "start_byte, end_byte, records, loaded, rejected, suppressed";
        let sql = self.of_ledger(columns, "spans") + " ORDER BY start_byte";
        let mut at = super::input::HEADER.len() as i64;
        let mut sums = [0i64; 4];
        for row in self.database.query(&sql) {
            verdict.expect("start of a span", row.get::<_, i64>(0), at);
            at = row.get(1);
            for (index, sum) in sums.iter_mut().enumerate() {
                *sum += row.get::<_, Option<i64>>(index + 2).unwrap_or(-1);
            }
        }
        let bad = self.input.bad_count() as i64;
        let all = self.input.lines.len() as i64;
        verdict.expect("end of the spans", at, self.input.bytes().len() as i64);
        verdict.expect("sums of the spans", sums, [all, all - bad, bad, 0]);
        self.nothing_left_over("checker");
    }

    /// No session of a loader stays on the server.
    #[track_caller]
    pub fn nothing_left_over(&self, fault: &str) {
        let sql = "SELECT concat_ws(' ', pid, state, query) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'pgrung'";
        let deadline = Instant::now() + LEFT_OVER_LIMIT;
        loop {
            let left = self.database.lines(sql);
            if left.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{fault}: sessions left over: {left:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
