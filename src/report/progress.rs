//! Shows how far a load is while it runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle,
};

use super::{Console, Counters};
use crate::stop::Stop;

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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
    /// Ends with the load.
    pub done: Arc<Stop>,
    /// Where lines go.
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
                "{bar:30} {percent:>3}%  {bytes}/{total_bytes}  {msg}  ETA {eta}",
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
        while !self.wait(REFRESH).await {
            let rows = self.counters.loaded.load(Ordering::Relaxed);
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
        let mut rate = Rate::new();
        while !self.wait(self.every).await {
            let rows = self.counters.loaded.load(Ordering::Relaxed);
            let taken = self.taken.load(Ordering::Relaxed);
            let mut line = format!(
                "{} rows loaded, {} rows/s, {} read",
                HumanCount(rows),
                HumanCount(rate.recent(rows)),
                HumanBytes(taken),
            );
            if let Some(total) = self.total.filter(|total| *total > 0 && taken > 0) {
                let share = taken as f64 / total as f64;
                let left = start.elapsed().as_secs_f64() * (1.0 - share) / share;
                line.push_str(&format!(
                    " of {} ({:.0} %), ETA {:#}",
                    HumanBytes(total),
                    share * 100.0,
                    HumanDuration(Duration::try_from_secs_f64(left.max(0.0)).unwrap_or_default()),
                ));
            }
            self.console.notice(&line);
        }
    }

    /// Waits; true when the load is done.
    async fn wait(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.done.wait()).await.is_ok()
    }
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
