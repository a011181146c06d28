//! What a load leaves in the table: modes, guards, leases, and the files of jobs.

mod batches;
mod check;
mod file;
mod guards;
mod history;
mod late;
mod maps;
mod model;
mod newer;
mod nights;
mod overlap;
mod replace;
mod resumed;
