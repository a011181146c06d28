//! Shows how far a load is while it runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle,
};

use serde::{Deserialize, Serialize};

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
    /// Stored bytes of all sources, where known.
    pub total: Option<u64>,
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
        let (bar, template) = match self.total {
            Some(total) => (
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()),
                "{wide_bar} {percent:>3}%  {bytes}/{total_bytes}  {msg}  ETA {eta}",
            ),
            None => (
                ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
                "{spinner} {bytes}  {msg}  {elapsed}",
            ),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        self.console.set_bar(Some(bar.clone()));
        let mut rate = Rate::new();
        while !self.done.within(REFRESH).await {
            let rows = self.counters.tally().loaded();
            bar.set_message(format!(
                "{} rows  {} rows/s",
                HumanCount(rows),
                HumanCount(rate.recent(rows))
            ));
            bar.set_position(self.taken.load(Ordering::Relaxed));
        }
        self.console.set_bar(None);
        bar.finish_and_clear();
    }

    async fn lines(self) {
        let start = Instant::now();
        let (mut rows, mut batches) = (0, Batches::default());
        let mut looked = start;
        while !self.done.within(self.every).await {
            let seconds = looked.elapsed().as_secs_f64();
            looked = Instant::now();
            let (rows_before, before) = (rows, batches);
            rows = self.counters.tally().loaded();
            batches = self.counters.batches();
            let mut line = flow(
                rows,
                (rows - rows_before) as f64 / seconds.max(f64::EPSILON),
                &batches.since(&before),
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
            let taken = self.taken.load(Ordering::Relaxed);
            if let Some(total) = self.total.filter(|total| *total > 0 && taken > 0) {
                let share = taken as f64 / total as f64;
                let left = start.elapsed().as_secs_f64() * (1.0 - share) / share;
                line.push_str(&format!(
                    "; {:.0} % of {}, ETA {:#}",
                    share * 100.0,
                    HumanBytes(total),
                    HumanDuration(Duration::try_from_secs_f64(left.max(0.0)).unwrap_or_default()),
                ));
            }
            self.console.notice(&line);
        }
    }
}

/// What has flowed since the last line, in the words of the summary.
fn flow(rows: u64, rate: f64, batches: &Batches) -> String {
    let mut line = format!(
        "{} rows loaded, {} rows/s; flush",
        HumanCount(rows),
        HumanCount(rate as u64)
    );
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
