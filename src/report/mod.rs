//! What a load tells: counts and histograms, and their forms as text, JSON and a live display.

mod console;
mod counters;
mod estimate;
mod latency;
mod progress;
mod reasons;
mod rehearsal;
mod summary;
mod verdict;

pub use console::{Console, LogFormat};
pub use counters::{Batches, Counters, Way};
pub use latency::{Latency, LatencyMillis};
pub use progress::{Progress, ProgressMode};
pub use reasons::{Reasons, RejectReason};
pub use rehearsal::{Filled, LeftOut, Lock, Rehearsal};
pub use summary::Summary;
pub use verdict::{Bottleneck, Bound, Looks, Observed};
