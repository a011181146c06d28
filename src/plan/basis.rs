//! What the figures of a plan rest on.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::arrival::brief;

/// Where a figure is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The user said so.
    Given,
    /// The server that was named.
    Measured,
    /// Nobody: it is usual.
    Assumed,
}

/// A time, and where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    pub time: Duration,
    pub from: Origin,
}

/// The figures that a plan is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Basis {
    pub round_trip: Figure,
    pub commit: Figure,
    pub wal_writer_delay: Figure,
    /// Which rows cost what is computed with.
    pub row_costs: &'static str,
}

/// The rows of [`super::Costs::default`].
const LINEITEM: &str = "TPC-H lineitem, 16 columns, some 130 bytes a row, no index";

impl Basis {
    /// With the costs of a row that are built in.
    pub fn new(round_trip: Figure, commit: Figure, wal_writer_delay: Figure) -> Self {
        Basis {
            round_trip,
            commit,
            wal_writer_delay,
            row_costs: LINEITEM,
        }
    }
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e3)
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.from {
            Origin::Given => "given",
            Origin::Measured => "measured",
            Origin::Assumed => "assumed",
        };
        write!(f, "{} ({from})", brief(self.time.as_secs_f64()))
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Basis {
            round_trip,
            commit,
            wal_writer_delay,
            row_costs,
        } = self;
        writeln!(
            f,
            "round trip {round_trip}, commit {commit}, wal_writer_delay {wal_writer_delay}"
        )?;
        writeln!(
            f,
            "  rows   at the costs of {row_costs}, not those of your table;"
        )?;
        write!(
            f,
            "         pgrung bench --input FILE --table T measures yours"
        )
    }
}
