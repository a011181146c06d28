//! How far a load is, and how long it has left: by what is settled, not by what is read.

use std::collections::VecDeque;
use std::time::Duration;

/// The rate of the time left is that of the last so many seconds: long enough for a few batches,
/// short enough to follow a server that slows down as its indexes grow.
const WINDOW_SECONDS: f64 = 15.0;

/// What is known of a load at some time. Bytes are uncompressed unless they are stored ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Stored bytes of all sources.
    pub stored: u64,
    /// Stored bytes taken from them.
    pub taken: u64,
    /// Bytes of records found in what was taken.
    pub found: u64,
    /// Bytes that earlier runs have settled, wherever they stand.
    pub known: u64,
    /// Bytes that this run has settled: committed, rejected or dropped.
    pub settled: u64,
}

impl Look {
    /// Bytes of all sources, as far as what was taken tells how they are packed.
    fn total(&self) -> f64 {
        let unpacked = self.found as f64 / self.taken.max(1) as f64;
        // Text grows when it is unpacked; less has been found only because it lies in buffers.
        (self.stored as f64 * unpacked.max(1.0)).max(1.0)
    }
}

/// Where a load is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progressed {
    /// Share that is settled, 0 to 1; it never goes back.
    pub share: f64,
    /// Time left; `None` before anything is settled.
    pub left: Option<Duration>,
}

/// Turns looks at a load into estimates.
#[derive(Debug)]
pub struct Estimate {
    /// Seconds and settled bytes, whenever more had been settled; the first at the start.
    changes: VecDeque<(f64, u64)>,
    share: f64,
}

impl Estimate {
    pub fn new() -> Self {
        Estimate {
            changes: [(0.0, 0)].into(),
            share: 0.0,
        }
    }

    /// Takes in a look at a load that has run for `elapsed`.
    pub fn look(&mut self, elapsed: Duration, look: &Look) -> Progressed {
        let total = look.total();
        let done = (look.known + look.settled) as f64;
        self.share = self.share.max((done / total).min(1.0));
        let rate = self.rate(elapsed.as_secs_f64(), look.settled);
        let left = rate.map(|rate| (total - done).max(0.0) / rate);
        Progressed {
            share: self.share,
            left: left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }

    /// Bytes a second, over at least one batch. While nothing more is settled it falls.
    fn rate(&mut self, now: f64, settled: u64) -> Option<f64> {
        if self.changes.back().is_none_or(|(_, last)| settled > *last) {
            self.changes.push_back((now, settled));
        }
        while self.changes.len() > 2 && now - self.changes[1].0 >= WINDOW_SECONDS {
            self.changes.pop_front();
        }
        let (then, before) = self.changes.front()?;
        let (seconds, bytes) = (now - then, settled.saturating_sub(*before));
        (bytes > 0 && seconds > 0.0).then(|| bytes as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 1_000_000;
    const BATCH: u64 = 10_000;

    /// A load in which a batch takes `seconds` of its share of the sources (0 to 1), up to `until`,
    /// looked at after each batch; what is told then, and the time that is truly left.
    fn model(known: u64, until: f64, seconds: impl Fn(f64) -> f64) -> (Progressed, f64) {
        let share = |done: u64| done as f64 / TOTAL as f64;
        let (mut estimate, mut at) = (Estimate::new(), 0.0);
        let mut look = Look {
            stored: TOTAL,
            taken: TOTAL,
            found: TOTAL,
            known,
            settled: 0,
        };
        let mut told = estimate.look(Duration::ZERO, &look);
        while share(known + look.settled) < until {
            at += seconds(share(known + look.settled));
            look.settled += BATCH;
            told = estimate.look(Duration::from_secs_f64(at), &look);
        }
        let rest = (known + look.settled..TOTAL).step_by(BATCH as usize);
        (told, rest.map(|done| seconds(share(done))).sum())
    }

    #[track_caller]
    fn near(told: Progressed, truth: f64, within: f64) {
        let left = told.left.unwrap().as_secs_f64();
        assert!(
            (left / truth - 1.0).abs() <= within,
            "{left} s, in truth {truth} s"
        );
    }

    #[test]
    fn a_steady_load_tells_the_time_left() {
        for until in [0.01, 0.3, 0.9] {
            let (told, truth) = model(0, until, |_| 2.0);
            near(told, truth, 0.01);
        }
    }

    #[test]
    fn what_an_earlier_run_has_loaded_counts_as_done_and_not_as_pace() {
        let (told, truth) = model(TOTAL * 9 / 10, 0.91, |_| 9.0);
        assert_eq!(told.share, 0.91);
        near(told, truth, 0.01);
    }

    #[test]
    fn a_server_that_slows_down_is_followed() {
        // From 1 s a batch to 3 s: at the half the mean of all is 33 % too fast.
        let (told, truth) = model(0, 0.5, |share| 1.0 + 2.0 * share);
        near(told, truth, 0.25);
        // A stall that is over is forgotten.
        let (told, truth) = model(0, 0.5, |share| if share < 0.3 { 60.0 } else { 1.0 });
        near(told, truth, 0.05);
    }

    #[test]
    fn what_is_read_and_not_settled_is_not_done() {
        let mut estimate = Estimate::new();
        let read = Look {
            stored: TOTAL,
            taken: TOTAL,
            found: TOTAL,
            ..Look::default()
        };
        let told = estimate.look(Duration::from_secs(30), &read);
        assert_eq!((told.share, told.left), (0.0, None));
    }

    #[test]
    fn the_time_left_grows_while_nothing_is_settled() {
        let mut estimate = Estimate::new();
        let look = Look {
            stored: TOTAL,
            taken: TOTAL,
            settled: TOTAL / 2,
            ..Look::default()
        };
        let mut at = |seconds| {
            estimate
                .look(Duration::from_secs(seconds), &look)
                .left
                .unwrap()
        };
        assert_eq!(at(10), Duration::from_secs(10));
        assert_eq!(at(40), Duration::from_secs(40));
    }

    #[test]
    fn a_packed_source_is_judged_by_what_it_unpacks_to_and_the_share_never_goes_back() {
        let mut estimate = Estimate::new();
        let mut look = Look {
            stored: TOTAL,
            taken: TOTAL / 10,
            found: TOTAL / 2,
            settled: TOTAL / 2,
            ..Look::default()
        };
        let told = estimate.look(Duration::from_secs(5), &look);
        assert_eq!(
            (told.share, told.left),
            (0.1, Some(Duration::from_secs(45)))
        );
        look.found = TOTAL;
        let told = estimate.look(Duration::from_secs(5), &look);
        assert_eq!(
            (told.share, told.left),
            (0.1, Some(Duration::from_secs(95)))
        );
    }
}
