//! What controls a load from outside.

use std::sync::Arc;

use crate::report::Console;
use crate::stop::Stop;

/// Where a load says what it does, and what stops it.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Where notices go.
    pub console: Console,
    /// Once set, nothing more is read; what is under way may finish, and the load ends, without an
    /// error unless by a signal.
    pub stop: Arc<Stop>,
}
