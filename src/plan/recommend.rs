//! Finds the settings that keep a latency, or says what stands in the way.

use std::time::Duration;

use serde::Serialize;

use super::arrival::{Arrival, brief};
use super::{HEADROOM, Request, WaitMillis, cost, utilisation};
use crate::strategy::StrategyKind;

/// Connections that one loader may take: PostgreSQL's max_connections is 100 unless configured
/// otherwise, and most servers have fewer cores than this.
const MOST_WORKERS: usize = 32;

/// Rows of the limit for each row that is expected within the wait: a burst of twice the rate still
/// closes by time, and a larger one closes early instead of making a long transaction.
const BURST: f64 = 2.0;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// Whether the workers keep up and the latency, where one was asked for, is kept with the
    /// settings as given.
    pub good_as_given: bool,
    /// Settings that do it; `None` if none do.
    pub settings: Option<Settings>,
    /// What stands in the way if nothing does it.
    pub obstacle: Option<Obstacle>,
    /// All that in a sentence.
    pub sentence: String,
}

/// Flags of `pgrung load`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    pub strategy: &'static str,
    /// `--batch-rows`; `None`: as many as fit into the bytes.
    pub batch_rows: Option<u64>,
    /// `--max-wait` in milliseconds; `None`: as long as it takes.
    pub max_wait_ms: Option<f64>,
    pub workers: usize,
}

/// Why a latency or a rate cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// The round trips of one transaction take too long: come closer to the server.
    RoundTrip,
    /// The commit takes too long: a faster disk, or less durability.
    Commit,
    /// The rows cost the server too much, with as many workers as make sense.
    Rows,
}

/// Finds settings for the request, first with its own strategy, then with `copy`.
pub fn recommend(request: &Request, utilisation: f64, wait: Option<WaitMillis>) -> Recommendation {
    let in_time = match (request.latency, wait) {
        (None, _) => true,
        (Some(latency), Some(wait)) => wait.first_row <= latency.as_secs_f64() * 1e3,
        (Some(_), None) => false,
    };
    if in_time && utilisation <= HEADROOM {
        return Recommendation {
            good_as_given: true,
            settings: Some(as_given(request, request.strategy, request.workers)),
            obstacle: None,
            sentence: match request.latency {
                None => "the settings as given keep up".to_string(),
                Some(latency) => format!(
                    "the settings as given keep up and keep {}",
                    brief(latency.as_secs_f64())
                ),
            },
        };
    }
    let found = find(request, request.strategy);
    let found = match (found, request.strategy) {
        (Err(obstacle), strategy) if strategy != StrategyKind::Copy => {
            find(request, StrategyKind::Copy).map_err(|_| obstacle)
        }
        (found, _) => found,
    };
    match found {
        Ok(settings) => Recommendation {
            good_as_given: false,
            sentence: format!("use {}", flags(&settings)),
            settings: Some(settings),
            obstacle: None,
        },
        Err(obstacle) => Recommendation {
            good_as_given: false,
            settings: None,
            obstacle: Some(obstacle),
            sentence: refusal(request, obstacle),
        },
    }
}

fn as_given(request: &Request, strategy: StrategyKind, workers: usize) -> Settings {
    Settings {
        strategy: strategy.name(),
        batch_rows: Some(request.window.rows as u64).filter(|_| request.window.rows < usize::MAX),
        max_wait_ms: request.window.wait.map(|wait| wait.as_secs_f64() * 1e3),
        workers,
    }
}

/// The settings with the longest wait, and so with the fewest commits, that keep the latency.
fn find(request: &Request, strategy: StrategyKind) -> Result<Settings, Obstacle> {
    let arrival = Arrival::of(request);
    let Some(latency) = request.latency else {
        let rows = arrival.batch().rows as f64;
        if let Ok(workers) = workers(request, strategy, rows) {
            return Ok(as_given(request, strategy, workers));
        }
        // Without a latency to keep, full batches are the cheapest.
        let workers = workers(request, strategy, request.full_rows())?;
        return Ok(Settings {
            max_wait_ms: None,
            ..as_given(request, strategy, workers)
        });
    };
    // The byte limit stays; the row limit is what is looked for.
    let arrival = arrival.without_row_limit();
    let latency = latency.as_secs_f64();
    let fits = |wait: f64| {
        let rows = arrival.rows_within(Duration::from_secs_f64(wait));
        wait + cost::transaction(request, strategy, (rows * BURST).min(arrival.full_rows()))
            <= latency
    };
    if cost::transaction(request, strategy, 1.0) > latency {
        let trips = latency_of_trips(request, strategy);
        return Err(if trips >= request.commit().as_secs_f64() {
            Obstacle::RoundTrip
        } else {
            Obstacle::Commit
        });
    }
    let (mut low, mut high) = (0.0, latency);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let wait = two_digits(low);
    let rows = arrival.rows_within(Duration::from_secs_f64(wait));
    Ok(Settings {
        strategy: strategy.name(),
        batch_rows: Some((rows * BURST) as u64),
        max_wait_ms: Some(wait * 1e3),
        workers: workers(request, strategy, rows)?,
    })
}

/// Seconds that one row's transaction spends under way.
fn latency_of_trips(request: &Request, strategy: StrategyKind) -> f64 {
    let mut far = request.clone();
    far.basis.commit.time = Duration::ZERO;
    cost::transaction(&far, strategy, 1.0)
}

/// Fewest workers that keep up with batches of `rows` rows and have headroom.
fn workers(request: &Request, strategy: StrategyKind, rows: f64) -> Result<usize, Obstacle> {
    let needed = (utilisation(request, strategy, 1, rows) / HEADROOM - 1e-9).ceil();
    if needed > MOST_WORKERS as f64 {
        return Err(Obstacle::Rows);
    }
    Ok((needed as usize).max(1))
}

/// Rounded down to two digits and whole microseconds, so that it can be typed.
fn two_digits(seconds: f64) -> f64 {
    let micros = (seconds * 1e6 + 1e-6).floor();
    let unit = 10f64.powf(micros.max(1.0).log10().floor() - 1.0).max(1.0);
    (micros / unit).floor() * unit / 1e6
}

fn flags(settings: &Settings) -> String {
    let mut text = format!("--strategy {}", settings.strategy);
    if let Some(rows) = settings.batch_rows {
        text.push_str(&format!(" --batch-rows {rows}"));
    }
    if let Some(wait) = settings.max_wait_ms {
        // Whole units: 0.95 ms is 950us.
        let micros = (wait * 1e3).round();
        text.push_str(&match micros % 1e3 == 0.0 {
            true => format!(" --max-wait {:.0}ms", micros / 1e3),
            false => format!(" --max-wait {micros:.0}us"),
        });
    }
    text.push_str(&format!(" --workers {}", settings.workers));
    text
}

fn refusal(request: &Request, obstacle: Obstacle) -> String {
    let trips = latency_of_trips(request, request.strategy);
    match obstacle {
        Obstacle::RoundTrip => format!(
            "the latency cannot be kept: the round trips of one transaction alone take {}; run the loader closer to the server",
            brief(trips)
        ),
        Obstacle::Commit => format!(
            "the latency cannot be kept: one transaction takes {}, most of it the commit; give the server a faster disk, or take --durability off",
            brief(trips + request.commit().as_secs_f64())
        ),
        Obstacle::Rows => format!(
            "{:.0} rows/s are too many: even {MOST_WORKERS} workers do not keep up; take larger batches or cheaper rows (fewer indexes, triggers, foreign keys), or divide the rows between servers",
            request.rows_per_second
        ),
    }
}
