//! What a transaction costs: round trips, the commit, and the rows.
//!
//! A batch is BEGIN, the ledger's claim, the rows, the ledger's settling and COMMIT, each awaited:
//! 4 round trips, 2 without the ledger. The rows are
//!
//! | strategy | round trips |
//! |---|---|
//! | `insert` | 1 a row |
//! | `pipeline` | 1, and never more than 256 rows a round trip |
//! | `multi-insert` | 1 a 1,000 rows (fewer rows in tables of more than 65 columns) |
//! | `unnest` | 1 |
//! | `copy` | 2 |

use std::time::Duration;

use super::Request;
use crate::strategy::StrategyKind;

/// Statements under way at most in `pipeline`.
const PIPELINE_DEPTH: f64 = 256.0;

/// Rows of a statement of `multi-insert`.
const STATEMENT_ROWS: f64 = 1_000.0;

/// Bytes that `copy` encodes ahead on a connection: one piece of 72 KiB being filled, one in the
/// client's channel, one being written, and the client's own output.
pub const PIECES_UNDER_WAY: f64 = 4.0 * 72.0 * 1024.0;

/// What one row costs a connection with its server process, the round trips not counted.
///
/// The defaults come from `pgrung bench --rows 50000 --rounds 2`, the faster round of each:
/// TPC-H lineitem, 16 columns and some 130 bytes a row, no index, PostgreSQL 15 and the loader
/// sharing 2 cores of an AMD EPYC that others used too, so they are high rather than low. `insert`
/// ran at 48 microseconds a row with its round trip and is taken to cost what `pipeline` does; from
/// the others their share of the commit is taken off, and all are rounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    pub insert: Duration,
    pub pipeline: Duration,
    pub multi_insert: Duration,
    pub unnest: Duration,
    pub copy: Duration,
}

impl Default for Costs {
    fn default() -> Self {
        Costs {
            insert: Duration::from_micros(30),
            pipeline: Duration::from_micros(30),
            multi_insert: Duration::from_micros(10),
            unnest: Duration::from_micros(9),
            copy: Duration::from_micros(2),
        }
    }
}

impl Costs {
    /// Seconds of one row.
    fn row(&self, strategy: StrategyKind) -> f64 {
        match strategy {
            StrategyKind::Insert => self.insert,
            StrategyKind::Pipeline => self.pipeline,
            StrategyKind::MultiInsert => self.multi_insert,
            StrategyKind::Unnest => self.unnest,
            StrategyKind::Copy => self.copy,
            StrategyKind::Discard => Duration::ZERO,
        }
        .as_secs_f64()
    }
}

/// Seconds from BEGIN to the answer to COMMIT for a batch of `rows` rows.
pub fn transaction(request: &Request, strategy: StrategyKind, rows: f64) -> f64 {
    round_trips_around(request) * request.round_trip().as_secs_f64()
        + request.commit().as_secs_f64()
        + write(request, strategy, rows)
}

/// Seconds of `insert --commit row` for one row: one round trip that commits.
pub fn autocommit(request: &Request) -> f64 {
    // Never 0, so that a ceiling stays a number.
    (request.round_trip().as_secs_f64()
        + request.commit().as_secs_f64()
        + request.costs.row(StrategyKind::Insert))
    .max(1e-9)
}

/// Round trips of a transaction besides the rows.
pub fn round_trips_around(request: &Request) -> f64 {
    if request.ledger { 4.0 } else { 2.0 }
}

/// Seconds that the rows of one batch take.
fn write(request: &Request, strategy: StrategyKind, rows: f64) -> f64 {
    let round_trip = request.round_trip().as_secs_f64();
    let work = rows * request.costs.row(strategy);
    match strategy {
        StrategyKind::Insert => rows * round_trip + work,
        StrategyKind::Pipeline => round_trip + work.max(rows / PIPELINE_DEPTH * round_trip),
        StrategyKind::MultiInsert => (rows / STATEMENT_ROWS).ceil() * round_trip + work,
        StrategyKind::Unnest => round_trip + work,
        StrategyKind::Copy => 2.0 * round_trip + work,
        StrategyKind::Discard => 0.0,
    }
    // Never 0, so that a ceiling stays a number.
    .max(1e-9)
}
