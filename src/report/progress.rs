//! Shows how far a load is while it runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle,
};

use serde::{Deserialize, Serialize};

use super::estimate::{Estimate, Look, Progressed};
use super::{Batches, Console, Counters};
use crate::batch::Batch;
use crate::outcome::Outcome;
use crate::stop::Stop;

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgressMode {
    /// A bar if stderr is a terminal, else plain lines.
    Auto,
    /// A bar.
    Bar,
    /// A line every `--report-every`.
    Plain,
    /// Nothing.
    None,
}

/// What the display looks at.
pub struct Progress {
    /// How to show it.
    pub mode: ProgressMode,
    /// Between two plain lines.
    pub every: Duration,
    /// Stored bytes of all sources that will be read, where known.
    pub total: Option<u64>,
    /// Uncompressed bytes that earlier runs have settled.
    pub known: u64,
    /// Stored bytes taken from the sources.
    pub taken: Arc<AtomicU64>,
    /// Counts of the load.
    pub counters: Arc<Counters>,
    /// Batches between readers and workers.
    pub queue: async_channel::Receiver<Batch>,
    /// Ends with the load.
    pub done: Arc<Stop>,
    pub console: Console,
}

/// Between two pictures of the bar.
const REFRESH: Duration = Duration::from_millis(125);

impl Progress {
    /// Shows progress until the load is done.
    pub async fn run(self) {
        let terminal = std::io::stderr().is_terminal();
        match self.mode {
            ProgressMode::None => {}
            ProgressMode::Plain => self.lines().await,
            ProgressMode::Auto if !terminal => self.lines().await,
            ProgressMode::Auto | ProgressMode::Bar => self.bar().await,
        }
    }

    async fn bar(self) {
        let template = match self.total {
            Some(_) => "{wide_bar} {percent:>3}%  {bytes}/{total_bytes}  {msg}",
            None => "{spinner} {bytes}  {msg}  {elapsed}",
        };
        let bar = ProgressBar::with_draw_target(self.total, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        self.console.set_bar(Some(bar.clone()));
        let (start, mut rate, mut estimate) = (Instant::now(), Rate::new(), Estimate::new());
        while !self.done.within(REFRESH).await {
            let ahead = self.ahead(&mut estimate, start);
            let rows = self.counters.rows().tally.passed();
            let mut message = format!(
                "{} rows  {} rows/s",
                HumanCount(rows),
                HumanCount(rate.recent(rows))
            );
            match ahead {
                _ if self.is_merging() => {
                    message = format!("merging {} rows", HumanCount(rows));
                    bar.set_position(self.total.unwrap_or_default());
                }
                Some((total, progressed)) => {
                    message.push_str(&format!("  ETA {}", time_left(progressed)));
                    bar.set_position((progressed.share * total as f64) as u64);
                }
                None => bar.set_position(self.taken.load(Ordering::Relaxed)),
            }
            bar.set_message(message);
        }
        self.console.set_bar(None);
        bar.finish_and_clear();
    }

    async fn lines(self) {
        let (start, mut estimate) = (Instant::now(), Estimate::new());
        let (mut rows, mut batches) = (0, Batches::default());
        let mut looked = start;
        while !self.done.within(self.every).await {
            if self.is_merging() {
                let rows = HumanCount(self.counters.rows().tally.passed());
                self.console.notice(&format!("merging {rows} rows"));
                continue;
            }
            let seconds = looked.elapsed().as_secs_f64();
            looked = Instant::now();
            let ahead = self.ahead(&mut estimate, start);
            let (rows_before, before) = (rows, batches);
            rows = self.counters.rows().tally.passed();
            batches = self.counters.batches();
            let mut line = format!(
                "{} rows {}, {} rows/s; {}",
                HumanCount(rows),
                self.counters.passed_means(),
                HumanCount(((rows - rows_before) as f64 / seconds.max(f64::EPSILON)) as u64),
                flow(&batches.since(&before)),
            );
            let (p50, p99) = self.counters.wait.take_recent();
            line.push_str(&format!(
                "; wait p50 {p50:.0} ms p99 {p99:.0} ms; queue {} of {}; retries {}; dropped {}; spilled {}",
                self.queue.len(),
                self.queue.capacity().unwrap_or(0),
                self.counters.retries.get(),
                HumanCount(self.counters.tally()[Outcome::Dropped]),
                HumanBytes(self.counters.spilled_bytes.get()),
            ));
            if let Some((total, progressed)) = ahead {
                line.push_str(&format!(
                    "; {:.0} % of {}, ETA {}",
                    (progressed.share * 100.0).floor(),
                    HumanBytes(total),
                    time_left(progressed),
                ));
            }
            self.console.notice(&line);
        }
    }

    /// Whether all rows are staged, and on their way into the table.
    fn is_merging(&self) -> bool {
        self.counters.merging.get() > 0
    }

    /// Stored bytes of all sources, and how far the load is, where it is known how far it goes.
    fn ahead(&self, estimate: &mut Estimate, start: Instant) -> Option<(u64, Progressed)> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((total, estimate.look(start.elapsed(), &self.look(total))))
    }

    /// What the estimate needs to know.
    fn look(&self, stored: u64) -> Look {
        let counters = &self.counters;
        // What one commit at the end covers is settled as far as it can be once it is written.
        let written = counters.bytes.get().max(counters.written_bytes.get());
        Look {
            stored,
            taken: self.taken.load(Ordering::Relaxed),
            found: counters.found_bytes.get(),
            known: self.known,
            settled: written + counters.dropped_bytes.get(),
        }
    }
}

fn time_left(progressed: Progressed) -> String {
    let left = progressed.left;
    left.map_or("-".to_string(), |left| format!("{:#}", HumanDuration(left)))
}

/// What batches have flowed since the last line, in the words of the summary.
fn flow(batches: &Batches) -> String {
    let mut line = "flush".to_string();
    for (reason, count) in batches.flushes() {
        line.push_str(&format!(" {} {count}", reason.name()));
    }
    if batches.count() > 0 {
        line.push_str(&format!("; fill {:.0} %", batches.fill_mean() * 100.0));
    }
    line
}

/// Rows a second over the last few looks.
struct Rate {
    looks: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    fn new() -> Self {
        Rate {
            looks: [(Instant::now(), 0)].into(),
        }
    }

    fn recent(&mut self, rows: u64) -> u64 {
        let now = Instant::now();
        self.looks.push_back((now, rows));
        // Long enough to be steady, short enough to show a stall.
        while self.looks.len() > 24 {
            self.looks.pop_front();
        }
        let (then, before) = self.looks[0];
        let seconds = (now - then).as_secs_f64();
        if seconds > 0.0 {
            ((rows - before.min(rows)) as f64 / seconds) as u64
        } else {
            0
        }
    }
}
