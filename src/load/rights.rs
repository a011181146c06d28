//! Finds out before the first row whether the target can be written: a write of no rows in a
//! transaction rolled back.

use std::pin::pin;

use bytes::Bytes;
use tokio_postgres::Client;

use crate::error::Error;
use crate::strategy::StrategyKind;
use crate::target::Target;

/// Finds missing rights, a read-only server, and tables that the strategy cannot write.
pub async fn check_rights(
    client: &Client,
    target: &Target,
    strategy: StrategyKind,
) -> Result<(), Error> {
    let refused = Error::server("checking that the table can be written");
    // Not to wait in silence for somebody who locks the table.
    client
        .batch_execute("BEGIN; SET LOCAL lock_timeout = '30s'")
        .await
        .map_err(&refused)?;
    let result = match strategy {
        StrategyKind::Discard => Ok(()),
        StrategyKind::Copy => copy_nothing(client, target).await,
        _ => client.batch_execute(&target.insert_nothing()).await,
    };
    if result.is_ok() {
        client.batch_execute("ROLLBACK").await.map_err(&refused)?;
    }
    result.map_err(&refused)
}

async fn copy_nothing(client: &Client, target: &Target) -> Result<(), tokio_postgres::Error> {
    let sink = client.copy_in::<_, Bytes>(&target.copy_from()).await?;
    pin!(sink).finish().await.map(|_| ())
}
