//! The workers' connections, with what must hold on them from their start.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::connection::ControlConnection;
use crate::connect::{self, Pool};
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
pub async fn pool(connection: &ControlConnection, settings: &LoadSettings) -> Result<Pool, Error> {
    let workers = settings.workers();
    let Some(durability) = settings.durability.filter(|_| settings.commits_alone()) else {
        return Ok(connect::pool(connection.server(), workers)?);
    };
    let server = connection
        .server()
        .with_setting("synchronous_commit", durability.setting());
    // Not prepared, for poolers.
    let doing = "reading the server's settings";
    let show = |client: Client| async {
        let answer = client.simple_query("SHOW synchronous_commit").await;
        let setting =
            answer
                .map_err(Error::server(doing))?
                .iter()
                .find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
                    _ => None,
                });
        Ok((client, setting.unwrap_or_default()))
    };
    let shown = connection.to(&server).ask(doing, show).await;
    let setting = shown.map_err(|error| match &error {
        // What poolers say to start-up options that they do not know.
        Error::Connect(refusal) if refusal.sqlstate() == Some(&SqlState::PROTOCOL_VIOLATION) => {
            refused(durability, &refusal.to_string())
        }
        _ => error,
    })?;
    match setting.as_str() {
        setting if setting == durability.setting() => Ok(connect::pool(&server, workers)?),
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
