//! Paces the tries of one batch: how often, how soon, how carefully.

use std::time::{Duration, Instant};

use crate::retry::{Action, Failure, Pace, pause};

/// Limits of the tries of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimits {
    /// Longest wait for one answer of the server.
    pub answer_timeout: Duration,
    /// Longest time to deliver one batch, retries included.
    pub delivery_timeout: Duration,
    /// Most repetitions of one transaction.
    pub max_retries: u32,
}

/// The tries of one batch so far.
pub struct Attempts {
    limits: RetryLimits,
    began: Instant,
    retries: u32,
    /// Failures of a kind that allows only a few.
    few: u32,
    records: usize,
    /// Whether to write in pieces behind savepoints and look for bad rows.
    pub careful: bool,
    /// Whether retries did not help, so that a row may be to blame whatever the code says.
    pub in_vain: bool,
    /// Most records of one statement.
    pub piece: usize,
}

/// What to do after a failed try.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again at once, in another way: nothing failed but a row.
    Again,
    /// Try again after this pause.
    Wait(Duration),
    /// Do not try again.
    GiveUp,
}

impl Attempts {
    /// No try yet, of a batch of `records`.
    pub fn new(limits: RetryLimits, records: usize) -> Self {
        Attempts {
            limits,
            began: Instant::now(),
            retries: 0,
            few: 0,
            records,
            careful: false,
            in_vain: false,
            piece: records,
        }
    }

    /// What to do after `failure`.
    pub fn next(&mut self, failure: &Failure) -> Next {
        let pace = match failure.action() {
            Action::Stop => return Next::GiveUp,
            // The careful way puts bad rows aside itself, so a second time means it cannot.
            Action::FindRow if self.careful => return Next::GiveUp,
            Action::FindRow => {
                self.careful = true;
                return Next::Again;
            }
            Action::RetrySmaller(most) => {
                self.careful = true;
                self.piece = (self.records >> (2 * (self.few + 1)).min(30)).max(1);
                Pace::Few(most)
            }
            Action::Retry(pace) => pace,
        };
        match self.wait(pace) {
            Some(wait) => Next::Wait(wait),
            None if self.began.elapsed() < self.limits.delivery_timeout => {
                self.blame_a_row(failure)
            }
            None => Next::GiveUp,
        }
    }

    /// How long to wait until a repetition at this pace; `None` if there is to be none.
    pub fn wait(&mut self, pace: Pace) -> Option<Duration> {
        if let Pace::Few(most) = pace {
            self.few += 1;
            if self.few > most {
                return None;
            }
        }
        let wait = pause(pace, self.retries + 1);
        let in_time = self.began.elapsed() + wait < self.limits.delivery_timeout;
        if self.retries == self.limits.max_retries || !in_time {
            return None;
        }
        self.retries += 1;
        Some(wait)
    }

    /// After the last retry: one more try that takes any refusal for a row's, once.
    fn blame_a_row(&mut self, failure: &Failure) -> Next {
        if self.in_vain || !failure.may_be_a_row(true) {
            return Next::GiveUp;
        }
        (self.careful, self.in_vain) = (true, true);
        Next::Again
    }

    /// Why there is no further try.
    pub fn given_up(&self) -> String {
        match self.retries {
            0 => "not tried again".to_string(),
            1 => "given up after 1 retry".to_string(),
            retries => format!("given up after {retries} retries"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(max_retries: u32, delivery_timeout: Duration) -> Attempts {
        let limits = RetryLimits {
            answer_timeout: Duration::from_secs(1),
            delivery_timeout,
            max_retries,
        };
        Attempts::new(limits, 1000)
    }

    #[test]
    fn retries_end_at_their_number_or_at_the_delivery_timeout() {
        let timeout = Failure::Timeout(Duration::from_secs(1));
        let mut few = attempts(2, Duration::from_secs(600));
        assert!(matches!(few.next(&timeout), Next::Wait(_)));
        assert!(matches!(few.next(&timeout), Next::Wait(_)));
        assert_eq!(few.next(&timeout), Next::GiveUp);
        assert_eq!(attempts(9, Duration::ZERO).next(&timeout), Next::GiveUp);
    }

    #[test]
    fn a_count_that_nothing_explains_is_never_tried_again() {
        let count = Failure::Count { sent: 2, stored: 1 };
        assert_eq!(
            attempts(9, Duration::from_secs(600)).next(&count),
            Next::GiveUp
        );
    }
}
