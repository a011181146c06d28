//! What a load tells: counts and histograms, and their forms as text, JSON and a live display.

mod bottleneck;
mod console;
mod counters;
mod imports;
mod progress;
mod summary;

pub use bottleneck::{Bottleneck, Observed};
pub use console::{Console, LogFormat};
pub use counters::{Counters, Latency};
pub use imports::describe_imports;
pub use progress::{Progress, ProgressMode};
pub use summary::{Batches, LatencyMillis, Rows, Summary};
