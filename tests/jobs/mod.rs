//! What a load leaves in the table: modes, guards, leases, and the files of jobs.

mod model;
mod replace;
