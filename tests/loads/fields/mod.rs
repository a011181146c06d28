//! What the fields of the input mean.

mod encodings;
mod nulls;
mod skip;
