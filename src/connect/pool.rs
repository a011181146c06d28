//! Lends connections to workers and takes them back without an open transaction.

use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Manager, Metrics, PoolError, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::error::ConnectError;
use super::settings::ConnectSettings;

/// For the check of a returned connection if `connect_timeout` is 0.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to be lent.
pub type Pool = managed::Pool<Opener>;

/// A connection of the pool; dropped, it goes back, unless it was taken out by `Lent::take`.
pub type Lent = managed::Object<Opener>;

/// Makes a pool of at most `size` connections, opened when first asked for.
///
/// A connection that comes back closed, or does not answer within the connect timeout, is
/// replaced; one in a transaction is rolled back. Waiting for a free connection has no
/// limit; opening one has those of [`connect`](super::connect).
///
/// An error of `Pool::get` turns into a [`ConnectError`] by `ConnectError::from`.
///
/// # Errors
/// [`ConnectError::Settings`] if `size` is 0.
pub fn pool(settings: &ConnectSettings, size: usize) -> Result<Pool, ConnectError> {
    if size == 0 {
        return Err(ConnectError::Settings(
            "a pool needs at least one connection; ask for 1 or more workers".to_owned(),
        ));
    }
    Pool::builder(Opener(settings.clone()))
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .recycle_timeout(Some(settings.limit.unwrap_or(RECYCLE_TIMEOUT)))
        .build()
        .map_err(|e| ConnectError::Pool(e.to_string()))
}

/// Opens the pool's connections the way [`connect`](super::connect) does.
#[derive(Debug)]
pub struct Opener(ConnectSettings);

impl Manager for Opener {
    type Type = ClientWrapper;
    type Error = ConnectError;

    async fn create(&self) -> Result<ClientWrapper, ConnectError> {
        let (client, task) = super::open(&self.0).await?;
        Ok(ClientWrapper::new(client, task))
    }

    /// Within the pool's recycle timeout; a failure makes the pool open another connection.
    async fn recycle(
        &self,
        client: &mut ClientWrapper,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        let ended = end_transaction(client).await;
        ended.map_err(|error| RecycleError::message(error.to_string()))
    }
}

/// Rolls back if a transaction is open. A bare ROLLBACK would do, but outside a transaction
/// the server writes a warning into its log, which would be one a batch.
async fn end_transaction(client: &Client) -> Result<(), Error> {
    // Outside a transaction block a simple query is its own transaction, so both are equal;
    // inside, the block began with an earlier message.
    let probe = client
        .simple_query("SELECT pg_catalog.now() = pg_catalog.statement_timestamp()")
        .await;
    let idle = match probe {
        Ok(messages) => messages
            .iter()
            .any(|m| matches!(m, SimpleQueryMessage::Row(row) if row.get(0) == Some("t"))),
        Err(e) if e.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => false,
        Err(e) => return Err(e),
    };
    if !idle {
        client.simple_query("ROLLBACK").await?;
    }
    Ok(())
}

impl From<PoolError<ConnectError>> for ConnectError {
    /// Gives back the reason why a connection of the pool was not made.
    fn from(error: PoolError<ConnectError>) -> Self {
        match error {
            PoolError::Backend(error) => error,
            other => ConnectError::Pool(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;
    use tokio_postgres::Config;

    #[tokio::test]
    async fn our_error_comes_back_whole_from_the_pool() {
        let mut config = Config::new();
        config.host_path("/nonexistent");
        let settings = ConnectSettings::from_config(config);
        let error = pool(&settings, 1).unwrap().get().await.unwrap_err();
        let (back, direct) = (
            ConnectError::from(error),
            super::super::connect(&settings).await.unwrap_err(),
        );
        assert!(matches!(back, ConnectError::Unreachable { .. }), "{back:?}");
        assert_eq!(back.to_string(), direct.to_string());
    }

    /// Lets everybody in and then says nothing; holds as many ends as logged in.
    async fn silent_server() -> (ConnectSettings, Arc<Mutex<Vec<TcpStream>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new();
        config.host("127.0.0.1").user("u");
        config.port(listener.local_addr().unwrap().port());
        config.connect_timeout(Duration::from_secs(1));
        let ends = Arc::new(Mutex::new(Vec::new()));
        let held = ends.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // AuthenticationOk and ReadyForQuery.
                stream
                    .write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")
                    .await
                    .unwrap();
                held.lock().unwrap().push(stream);
            }
        });
        (ConnectSettings::from_config(config), ends)
    }

    #[tokio::test]
    async fn a_connection_that_no_longer_answers_is_replaced() {
        let (settings, ends) = silent_server().await;
        let pool = pool(&settings, 1).unwrap();
        drop(pool.get().await.unwrap());
        assert_eq!(ends.lock().unwrap().len(), 1);
        let begun = Instant::now();
        let lent = timeout(Duration::from_secs(5), pool.get()).await;
        drop(lent.expect("no limit").unwrap());
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(ends.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_connection_that_was_taken_out_makes_room_for_another() {
        let (settings, ends) = silent_server().await;
        let pool = pool(&settings, 1).unwrap();
        drop(Lent::take(pool.get().await.unwrap()));
        drop(pool.get().await.unwrap());
        assert_eq!(ends.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_pool_of_none_is_a_usage_error() {
        let settings = ConnectSettings::from_config(Config::new());
        assert!(pool(&settings, 0).err().unwrap().is_usage());
    }
}
