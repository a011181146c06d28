//! Profiles: window, durability, overflow and commit set together; each single flag overrides.

use std::time::Duration;

use serde::Serialize;

use super::units::{Number, Time};
use super::{Durability, PartialSettings};
use crate::queue::Overflow;

/// What kind of load this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A one-time import of files: as fast as it goes, durable when it has ended.
    Bulk,
    /// A nightly job: each batch durable, nothing lost.
    Etl,
    /// Events for dashboards: 500 ms or 20,000 rows, loss acceptable.
    Events,
    /// Samples of measurements: seldom and large commits, loss acceptable.
    Metrics,
    /// An audit trail: every row durable before it counts.
    Audit,
}

impl Profile {
    /// What the profile sets; the rest is as without it.
    pub fn settings(self) -> PartialSettings {
        let nothing = PartialSettings::default();
        let millis = |millis| Some(Time(Duration::from_millis(millis)));
        match self {
            // The log is flushed behind the batches, not for each of them.
            Profile::Bulk => PartialSettings {
                durability: Some(Durability::End),
                ..nothing
            },
            Profile::Etl => nothing,
            // A dashboard shows the last second; a gap is better than a stall.
            Profile::Events => PartialSettings {
                batch_rows: Some(Number(20_000)),
                max_wait: millis(500),
                durability: Some(Durability::Off),
                overflow: Some(Overflow::Drop),
                ..nothing
            },
            // Nobody looks within seconds, so few and full batches.
            Profile::Metrics => PartialSettings {
                batch_rows: Some(Number(50_000)),
                max_wait: millis(5_000),
                durability: Some(Durability::Off),
                overflow: Some(Overflow::Drop),
                ..nothing
            },
            // Small windows keep a row waiting for its commit as short as the disk allows.
            Profile::Audit => PartialSettings {
                batch_rows: Some(Number(1_000)),
                max_wait: millis(20),
                durability: Some(Durability::On),
                ..nothing
            },
        }
    }
}
