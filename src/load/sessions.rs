//! The workers' connections, with what must hold on them from their start.

use tokio_postgres::SimpleQueryMessage;

use crate::connect::{self, ConnectError, ConnectSettings, Pool};
use crate::error::Error;
use crate::job::{Durability, LoadSettings, SettingsError};

/// A pool for the workers of a load.
///
/// Where each row is a transaction of its own there is no `SET LOCAL` for `--durability`: a
/// transaction a row would cost round trips, and a `SET` would stay on a pooler's connection, for
/// others. So sessions are started with it, and one is asked whether it has heard: a pooler may
/// refuse the option, or pass over it in silence.
///
/// # Errors
/// When there is no session with that setting.
pub async fn pool(server: &ConnectSettings, settings: &LoadSettings) -> Result<Pool, Error> {
    let workers = settings.workers();
    let Some(durability) = settings.durability.filter(|_| settings.commits_alone()) else {
        return Ok(connect::pool(server, workers)?);
    };
    let server = server.with_setting("synchronous_commit", durability.setting());
    let pool = connect::pool(&server, workers)?;
    let session = pool.get().await.map_err(ConnectError::from);
    let session = session.map_err(|error| match error.sqlstate() {
        // What poolers say to start-up options that they do not know.
        Some(code) if code.code() == "08P01" => refused(durability, &error.to_string()),
        _ => error.into(),
    })?;
    // Not prepared, for poolers.
    let answer = session.simple_query("SHOW synchronous_commit").await;
    let answer = answer.map_err(Error::server("reading the server's settings"))?;
    let setting = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    match setting.unwrap_or_default() {
        setting if setting == durability.setting() => Ok(pool),
        setting => Err(refused(
            durability,
            &format!("synchronous_commit is still {setting}"),
        )),
    }
}

fn refused(durability: Durability, why: &str) -> Error {
    Error::Settings(SettingsError(format!(
        "--durability {}: with --commit row and --no-ledger it is a start-up option of the session, which the server or its pooler does not take ({why}); leave one of the three away",
        durability.name()
    )))
}
