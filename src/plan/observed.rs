//! Tells of a run that has ended what held it up: the timer, the size of the batches, the server or
//! the source.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Batches below which the shares mean nothing.
const FEW_BATCHES: u64 = 5;

/// Share of its time that a side waits before it counts as waiting. Below it both sides work most
/// of the time.
const WAITING: f64 = 0.25;

/// Share of its time that a side waits before it is plainly idle.
const IDLE: f64 = 0.5;

/// Share of the queue from which it counts as full.
const FULL_QUEUE: f64 = 0.75;

/// What a run has measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed {
    /// Batches closed, in the order of
    /// [`FlushReason::ALL`](crate::window::FlushReason::ALL): rows, bytes, wait, end.
    pub flush: [u64; 4],
    /// How full they were on average, 0 to 1 of the nearest limit.
    pub fill_mean: f64,
    /// Mean of the queue's depth, in batches.
    pub queue_mean: f64,
    /// Batches that may wait for a worker.
    pub queue_capacity: usize,
    /// Threads that read.
    pub readers: usize,
    /// Connections that write.
    pub workers: usize,
    /// Time from the first row to the last commit.
    pub elapsed: Duration,
    /// Time that readers waited for an empty buffer or for room in the queue, added up over all of
    /// them.
    pub readers_waited: Duration,
    /// Time that workers waited for a full batch, added up over all of them.
    pub workers_waited: Duration,
}

/// What holds a run up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Rows come so slowly that `--max-wait` closes the batches.
    Timer,
    /// Batches close full and neither side waits much.
    Size,
    /// Readers wait for workers.
    Server,
    /// Workers wait for rows although batches close full.
    Source,
    /// Too little to tell.
    Unknown,
}

/// What held a run up, and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// What.
    pub bound: Bound,
    /// Share of their time that readers waited for workers, in percent.
    pub readers_waited_percent: f64,
    /// Share of their time that workers waited for readers, in percent.
    pub workers_waited_percent: f64,
    /// Both and the advice, in a sentence.
    pub sentence: String,
}

/// Classifies a run. A server that cannot keep up shows first, in readers that wait, whatever
/// closes the batches; only when it keeps up do the reasons of closing say something.
pub fn verdict(observed: &Observed) -> Verdict {
    let readers = share(observed.readers_waited, observed.elapsed, observed.readers);
    let workers = share(observed.workers_waited, observed.elapsed, observed.workers);
    let [rows, bytes, wait, end] = observed.flush;
    let closed = rows + bytes + wait;
    let queue = observed.queue_mean / observed.queue_capacity.max(1) as f64;
    let bound = if closed + end < FEW_BATCHES || observed.elapsed.is_zero() {
        Bound::Unknown
    } else if readers >= WAITING && readers > workers || queue >= FULL_QUEUE && workers < WAITING {
        Bound::Server
    } else if wait * 2 > closed {
        Bound::Timer
    } else if workers >= IDLE {
        Bound::Source
    } else if closed == 0 {
        Bound::Unknown
    } else {
        Bound::Size
    };
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let fill = percent(observed.fill_mean);
    let sentence = match bound {
        Bound::Unknown => "too few batches to tell what held the load up".to_string(),
        Bound::Server => format!(
            "server-bound: readers waited {} of the time for the workers; more --workers help while the server has idle cores, then --strategy copy, fewer indexes or --durability end",
            percent(readers)
        ),
        Bound::Timer => format!(
            "timer-bound: --max-wait closed {} of the batches, {fill} full; good for freshness, and a longer --max-wait makes fewer and cheaper commits",
            percent(wait as f64 / closed as f64)
        ),
        Bound::Source => format!(
            "source-bound: workers waited {} of the time for rows; fewer --workers do as well, only a faster source does better",
            percent(workers)
        ),
        Bound::Size => format!(
            "size-bound: batches close {fill} full and neither readers ({} waiting) nor workers ({}) are idle; larger --batch-rows or --batch-bytes make fewer commits",
            percent(readers),
            percent(workers)
        ),
    };
    Verdict {
        bound,
        readers_waited_percent: readers * 100.0,
        workers_waited_percent: workers * 100.0,
        sentence,
    }
}

/// Share of the time of `many` that was waited, 0 to 1.
fn share(waited: Duration, elapsed: Duration, many: usize) -> f64 {
    let all = elapsed.as_secs_f64() * many as f64;
    if all > 0.0 {
        (waited.as_secs_f64() / all).min(1.0)
    } else {
        0.0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds of one reader and two workers that waited so many milliseconds in all.
    fn run(flush: [u64; 4], queue_mean: f64, readers: u64, workers: u64) -> Verdict {
        verdict(&Observed {
            flush,
            fill_mean: 0.5,
            queue_mean,
            queue_capacity: 2,
            readers: 1,
            workers: 2,
            elapsed: Duration::from_secs(10),
            readers_waited: Duration::from_millis(readers),
            workers_waited: Duration::from_millis(workers),
        })
    }

    #[test]
    fn each_run_has_one_thing_that_holds_it_up() {
        for (flush, queue, readers, workers, expected) in [
            ([0, 0, 4, 0], 0.0, 0, 19_000, Bound::Unknown),
            ([0, 0, 0, 9], 0.0, 0, 0, Bound::Unknown),
            ([0, 0, 100, 1], 0.1, 0, 19_000, Bound::Timer),
            ([100, 0, 0, 1], 1.0, 8_000, 100, Bound::Server),
            // Small batches by time, and still too many of them.
            ([0, 0, 100, 1], 1.9, 6_000, 100, Bound::Server),
            // The queue is full though no buffer is ever missing.
            ([0, 100, 0, 1], 1.6, 100, 1_000, Bound::Server),
            ([0, 100, 0, 1], 0.2, 100, 15_000, Bound::Source),
            ([0, 0, 0, 9], 0.2, 100, 15_000, Bound::Source),
            ([60, 40, 10, 1], 0.9, 1_000, 3_000, Bound::Size),
            // Bursts: both sides wait in turn, the workers more.
            ([60, 40, 10, 1], 0.9, 3_000, 12_000, Bound::Source),
        ] {
            let verdict = run(flush, queue, readers, workers);
            assert_eq!(verdict.bound, expected, "{flush:?} {verdict}");
        }
    }

    #[test]
    fn shares_are_of_all_threads() {
        let verdict = run([0, 0, 100, 1], 0.0, 1_000, 5_000);
        assert_eq!(verdict.readers_waited_percent, 10.0);
        assert_eq!(verdict.workers_waited_percent, 25.0);
        assert_eq!(
            verdict.to_string(),
            "timer-bound: --max-wait closed 100 % of the batches, 50 % full; good for freshness, and a longer --max-wait makes fewer and cheaper commits"
        );
    }

    #[test]
    fn a_run_of_nothing_divides_by_nothing() {
        let verdict = verdict(&Observed::default());
        assert_eq!(verdict.bound, Bound::Unknown);
        assert_eq!(verdict.readers_waited_percent, 0.0);
    }
}
