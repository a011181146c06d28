//! Columns that are expressions of the fields (`--map`).

mod oracle;
mod plan;
mod refused;
mod resumed;
mod rows;
