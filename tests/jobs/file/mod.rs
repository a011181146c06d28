//! Job files, and `pgrung run`, which runs their loads.

mod bad;
mod environment;
mod hooks;
mod nights;
mod paths;
mod schema;

use std::path::PathBuf;

use crate::support::{Cmd, Database, Files, pgrung};

/// A file or directory below `fixtures/jobs`.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/jobs")
        .join(name)
}

/// A run of a job file of these lines, in a directory of the test's own.
fn run(database: &Database, files: &Files, lines: &str) -> Cmd {
    database.pgrung("run").arg(files.write("job.toml", lines))
}

/// `pgrung run` of a job file of these lines, without a server.
fn run_alone(files: &Files, lines: &str) -> Cmd {
    pgrung("run").arg(files.write("job.toml", lines))
}

/// What the summary says of each load by this key, as text.
fn told(summary: &serde_json::Value, key: &str) -> Vec<String> {
    let loads = summary["loads"].as_array().unwrap().iter();
    loads
        .map(|load| match load.pointer(key).unwrap() {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect()
}

/// Names of the loads that were not run.
fn not_run(summary: &serde_json::Value) -> Vec<&str> {
    let loads = summary["not_run"].as_array().unwrap().iter();
    loads.map(|load| load["name"].as_str().unwrap()).collect()
}
