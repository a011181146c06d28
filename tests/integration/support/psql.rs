//! psql, the judge of what a file holds.

use std::process::{Command, Stdio};

/// psql with a connection string, without the tester's settings.
///
/// # Panics
/// When psql is not installed.
pub fn psql(dsn: &str) -> Command {
    let found = Command::new("psql")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "psql is needed to say what a file holds: apt-get install postgresql-client"
    );
    let mut command = Command::new("psql");
    super::command::clean(&mut command);
    command
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn])
        .env("PGCLIENTENCODING", "UTF8");
    command
}
