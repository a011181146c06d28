//! The comparison as text with bars, as Markdown and as JSON.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::case::{Case, Run};
use super::layout::{Bar, aligned, ladder, told};
use crate::job::{Durability, Time};
use crate::report::{Latency, LatencyMillis};
use crate::worker::Commit;

/// All runs of one rung.
pub struct CaseRuns {
    case: Case,
    runs: Vec<Run>,
    latency: Latency,
}

impl CaseRuns {
    pub fn new(case: Case) -> Self {
        CaseRuns {
            case,
            runs: Vec::new(),
            latency: Latency::default(),
        }
    }

    /// Takes one run in.
    pub fn add(&mut self, run: Run) {
        self.latency.add(&run.counters.commit);
        self.runs.push(run);
    }

    /// Rows a second of all runs, slowest first; none of a run in which no batch was finished.
    fn rates(&self) -> Vec<f64> {
        let measured = self.runs.iter();
        let measured = measured.filter(|run| run.rows > 0 && run.seconds > 0.0);
        let mut rates: Vec<f64> = measured.map(|run| run.rows as f64 / run.seconds).collect();
        rates.sort_by(f64::total_cmp);
        rates
    }

    /// Rows a second, the median; `None` if no batch was finished in any run.
    fn rate(&self) -> Option<f64> {
        let rates = self.rates();
        (!rates.is_empty()).then(|| median(&rates))
    }

    fn median_of(&self, value: impl Fn(&Run) -> f64) -> f64 {
        let mut values: Vec<f64> = self.runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        median(&values)
    }
}

/// The middle of sorted values; 0 without any.
fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

/// Where the bench ran.
pub struct Machine {
    client: String,
    cores: usize,
    server: String,
    settings: String,
}

impl Machine {
    /// Asks the server and the system.
    pub async fn of(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let row = client
            .query_one(
                "SELECT current_setting('server_version') AS version,
                        string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name) AS settings
                 FROM pg_settings
                 WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_wal_size')",
                &[],
            )
            .await?;
        let cpu = std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_string())
            })
            .unwrap_or_else(|| std::env::consts::ARCH.to_string());
        Ok(Machine {
            client: cpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            server: row.get("version"),
            settings: row.get("settings"),
        })
    }
}

pub struct Results {
    pub machine: Machine,
    pub what: String,
    /// Rows of the input.
    pub rows: u64,
    /// What the user's table has and its copies lack.
    pub left_out: Vec<String>,
    /// Longest time of one run.
    pub max_time: Duration,
    /// Runs of each rung.
    pub rounds: usize,
    pub workers: usize,
    /// What the server waited for at a commit, if not as it is set.
    pub durability: Option<Durability>,
    /// The rungs in order.
    pub measured: Vec<CaseRuns>,
    /// The same with the server further away.
    pub far: Vec<Distant>,
}

/// The rungs with a longer way to the server.
pub struct Distant {
    /// The round trip put between client and server.
    pub round_trip: Duration,
    /// The rungs in order.
    pub measured: Vec<CaseRuns>,
}

/// One line of the table, computed.
struct Line {
    name: &'static str,
    textbook: &'static str,
    rows: u64,
    partial: bool,
    /// Median, slowest and fastest; `None` if no batch was finished.
    rates: Option<[f64; 3]>,
    ratio: Option<f64>,
    latency: LatencyMillis,
    wal_bytes: u64,
    table_bytes: u64,
    floor: bool,
}

const HEADINGS: [&str; 11] = [
    "strategy", "rows", "rows/s", "min..max", "ratio", "p50 ms", "p99 ms", "p99.9 ms", "WAL",
    "table", "textbook",
];

impl Results {
    fn lines(&self) -> Vec<Line> {
        let foot = self
            .measured
            .iter()
            .find(|measured| measured.case.commit == Commit::Row)
            .and_then(CaseRuns::rate);
        self.measured
            .iter()
            .map(|measured| {
                let rates = measured.rates();
                let rate = measured.rate();
                let rows = measured.runs.iter().map(|run| run.rows).min().unwrap_or(0);
                Line {
                    name: measured.case.name(),
                    textbook: measured.case.textbook(),
                    rows,
                    partial: rows < self.rows,
                    rates: rate
                        .zip(rates.first().zip(rates.last()))
                        .map(|(rate, (slowest, fastest))| [rate, *slowest, *fastest]),
                    ratio: rate.zip(foot).map(|(rate, foot)| rate / foot),
                    latency: LatencyMillis::of(&measured.latency),
                    wal_bytes: measured.median_of(|run| run.wal_bytes as f64) as u64,
                    table_bytes: measured.median_of(|run| run.table_bytes as f64) as u64,
                    floor: measured.case.strategy == crate::strategy::StrategyKind::Discard,
                }
            })
            .collect()
    }

    fn cells(line: &Line) -> [String; 11] {
        let without = line.floor || line.rates.is_none();
        let bytes = |bytes: u64| match without {
            true => String::new(),
            false => HumanBytes(bytes).to_string(),
        };
        let millis = |value: f64| match without {
            true => String::new(),
            false => format!("{value:.2}"),
        };
        [
            line.name.to_string(),
            format!(
                "{}{}",
                HumanCount(line.rows),
                if line.partial { "*" } else { "" }
            ),
            told(line.rates.map(|[rate, ..]| rate)),
            line.rates.map_or(String::new(), |[_, slowest, fastest]| {
                format!(
                    "{}..{}",
                    HumanCount(slowest as u64),
                    HumanCount(fastest as u64)
                )
            }),
            line.ratio
                .map_or(String::new(), |ratio| format!("{ratio:.1}x")),
            millis(line.latency.p50),
            millis(line.latency.p99),
            millis(line.latency.p999),
            bytes(line.wal_bytes),
            bytes(line.table_bytes),
            line.textbook.to_string(),
        ]
    }

    fn heading(&self) -> String {
        let Machine {
            client,
            cores,
            server,
            settings,
        } = &self.machine;
        let durability = match self.durability {
            Some(durability) => format!(", durability {}", durability.name()),
            None => String::new(),
        };
        format!(
            "{}, {} rows; median of {} round{}, {} worker{}{durability}\nPostgreSQL {server} ({settings}); {cores} x {client}\n",
            self.what,
            HumanCount(self.rows),
            self.rounds,
            if self.rounds == 1 { "" } else { "s" },
            self.workers,
            if self.workers == 1 { "" } else { "s" },
        )
    }

    /// Rows a second of each rung by round trip; empty without any.
    fn by_round_trip(&self) -> Vec<Vec<String>> {
        if self.far.is_empty() {
            return Vec::new();
        }
        let rate = |measured: &CaseRuns| told(measured.rate());
        let mut heading = vec!["rows/s by round trip".to_string(), "as it is".to_string()];
        heading.extend(self.far.iter().map(|far| format!("{:?}", far.round_trip)));
        let mut rows = vec![heading];
        for near in &self.measured {
            let of_case = |far: &Distant| {
                let same = far.measured.iter().find(|other| other.case == near.case);
                same.map_or(String::new(), rate)
            };
            let mut row = vec![near.case.name().to_string(), rate(near)];
            row.extend(self.far.iter().map(of_case));
            rows.push(row);
        }
        rows
    }

    fn notes(&self, lines: &[Line]) -> String {
        let mut notes = String::new();
        if !self.left_out.is_empty() {
            let _ = writeln!(
                notes,
                "left out of the copies, and so of all figures: {}",
                self.left_out.join(", ")
            );
        }
        let far = self.far.iter().flat_map(|far| &far.measured);
        if self
            .measured
            .iter()
            .chain(far)
            .any(|measured| measured.rate().is_none())
        {
            let _ = writeln!(
                notes,
                "- no batch finished in {}: no figure; a longer --max-seconds or a smaller --batch-rows gives one",
                Time(self.max_time)
            );
        }
        if lines
            .iter()
            .any(|line| line.partial && line.rates.is_some())
        {
            notes.push_str("* stopped at --max-seconds; its rate is that of the rows it did\n");
        }
        if lines.iter().any(|line| line.floor) {
            notes.push_str(
                "discard is the client's floor: it reads, parses and encodes, and sends nothing\n",
            );
        }
        notes.push_str("ms: from BEGIN to the answer to COMMIT; textbook: rows/s that textbooks give the rung\n");
        notes
    }

    /// A table with aligned columns, and the ladder as bars.
    pub fn text(&self) -> String {
        let lines = self.lines();
        let mut table = vec![HEADINGS.map(str::to_string).to_vec()];
        table.extend(lines.iter().map(|line| Self::cells(line).to_vec()));
        let mut text = self.heading();
        text.push('\n');
        text.push_str(&aligned(&table));
        text.push('\n');
        let bar = |line: &Line| Bar {
            name: line.name,
            rate: line.rates.map(|[rate, ..]| rate),
            floor: line.floor,
        };
        let drawn = ladder(&lines.iter().map(bar).collect::<Vec<_>>());
        if !drawn.is_empty() {
            text.push_str(&drawn);
            text.push('\n');
        }
        let far = self.by_round_trip();
        if !far.is_empty() {
            text.push_str(&aligned(&far));
            text.push('\n');
        }
        text.push_str(&self.notes(&lines));
        text
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let lines = self.lines();
        let mut text = format!(
            "{}\n| {} |\n|---|{}\n",
            self.heading(),
            HEADINGS.join(" | "),
            "--:|".repeat(HEADINGS.len() - 1)
        );
        for line in &lines {
            let _ = writeln!(text, "| {} |", Self::cells(line).join(" | "));
        }
        for (index, row) in self.by_round_trip().iter().enumerate() {
            let _ = match index {
                0 => writeln!(
                    text,
                    "\n| {} |\n|---|{}",
                    row.join(" | "),
                    "--:|".repeat(row.len() - 1)
                ),
                _ => writeln!(text, "| {} |", row.join(" | ")),
            };
        }
        text.push('\n');
        text.push_str(&self.notes(&lines));
        text
    }

    pub fn json(&self) -> Value {
        let results: Vec<Value> = self
            .lines()
            .iter()
            .zip(&self.measured)
            .map(|(line, measured)| {
                json!({
                    "strategy": measured.case.strategy.name(),
                    "commit": if measured.case.commit == Commit::Row { "row" } else { "batch" },
                    "rows": line.rows,
                    "complete": !line.partial,
                    "seconds": measured.median_of(|run| run.seconds),
                    "rows_per_second": line.rates.map(|[rate, ..]| rate),
                    "rows_per_second_min": line.rates.map(|[_, slowest, _]| slowest),
                    "rows_per_second_max": line.rates.map(|[.., fastest]| fastest),
                    "ratio": line.ratio,
                    "commit_latency_ms": line.latency,
                    "wal_bytes": line.wal_bytes,
                    "table_bytes": line.table_bytes,
                    "client_cpu_seconds": measured.median_of(|run| run.client_cpu.as_secs_f64()),
                })
            })
            .collect();
        let Machine {
            client,
            cores,
            server,
            settings,
        } = &self.machine;
        let document = json!({
            "machine": { "cpu": client, "cores": cores },
            "server": { "version": server, "settings": settings },
            "input": self.what,
            "left_out": self.left_out,
            "rows": self.rows,
            "rounds": self.rounds,
            "workers": self.workers,
            "durability": self.durability,
            "results": results,
            "round_trips": self.far.iter().map(|far| json!({
                "round_trip_ms": far.round_trip.as_secs_f64() * 1000.0,
                "results": far.measured.iter().map(|measured| json!({
                    "strategy": measured.case.strategy.name(),
                    "commit": if measured.case.commit == Commit::Row { "row" } else { "batch" },
                    "rows_per_second": measured.rate(),
                })).collect::<Vec<Value>>(),
            })).collect::<Vec<Value>>(),
        });
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Counters;
    use crate::strategy::StrategyKind;
    use std::sync::Arc;
    use std::time::Duration;

    fn results() -> Results {
        let measured = |strategy, commit, seconds: &[f64], rows| {
            let mut measured = CaseRuns::new(Case { strategy, commit });
            for &seconds in seconds {
                let counters = Counters::default();
                counters.commit.record(Duration::from_millis(2));
                measured.add(Run {
                    rows,
                    seconds,
                    counters: Arc::new(counters),
                    wal_bytes: 3 << 20,
                    table_bytes: 2 << 20,
                    client_cpu: Duration::from_millis(100),
                });
            }
            measured
        };
        Results {
            machine: Machine {
                client: "a processor".to_string(),
                cores: 2,
                server: "15.1".to_string(),
                settings: "fsync on".to_string(),
            },
            what: "TPC-H lineitem".to_string(),
            rows: 10_000,
            left_out: vec!["trigger \"audit\"".to_string()],
            max_time: Duration::from_secs(10),
            rounds: 3,
            workers: 1,
            durability: None,
            far: vec![Distant {
                round_trip: Duration::from_millis(10),
                measured: vec![measured(StrategyKind::Copy, Commit::Batch, &[0.5], 10_000)],
            }],
            measured: vec![
                measured(StrategyKind::Insert, Commit::Row, &[1.0, 2.0, 4.0], 2_000),
                measured(StrategyKind::Unnest, Commit::Batch, &[10.0; 3], 0),
                measured(StrategyKind::Copy, Commit::Batch, &[0.05, 0.1, 0.2], 10_000),
                measured(
                    StrategyKind::Discard,
                    Commit::Batch,
                    &[0.01, 0.01, 0.01],
                    10_000,
                ),
            ],
        }
    }

    #[test]
    fn the_table_in_text() {
        insta::assert_snapshot!(results().text());
    }

    #[test]
    fn the_table_in_markdown() {
        insta::assert_snapshot!(results().markdown());
    }

    #[test]
    fn the_results_in_json() {
        insta::assert_snapshot!(format!("{:#}\n", results().json()));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }
}
