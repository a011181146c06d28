//! What the fields of the input mean.

mod nulls;
mod skip;
