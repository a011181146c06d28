//! What the fields of the input mean.

mod skip;
