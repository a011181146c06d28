//! Lends connections to workers and takes them back without an open transaction.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Connect, Hook, HookError, Manager, ManagerConfig, Pool, PoolError,
    RecyclingMethod, Runtime,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use super::error::ConnectError;
use super::settings::ConnectSettings;

/// For the check of a returned connection if `connect_timeout` is 0.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a pool of at most `size` connections, opened when first asked for.
///
/// A connection that comes back closed, or does not answer within the connect timeout, is
/// replaced; one in a transaction is rolled back. Waiting for a free connection has no
/// limit; opening one has those of [`connect`](super::connect).
///
/// Turn an error of `Pool::get` into a [`ConnectError`] by `ConnectError::from`: only that
/// has the SQLSTATE of a refused login.
///
/// # Errors
/// [`ConnectError::Settings`] if `size` is 0.
pub fn pool(settings: &ConnectSettings, size: usize) -> Result<Pool, ConnectError> {
    if size == 0 {
        return Err(ConnectError::Settings(
            "a pool needs at least one connection; ask for 1 or more workers".to_owned(),
        ));
    }
    let limit = settings.limit.unwrap_or(RECYCLE_TIMEOUT);
    let manager = Manager::from_connect(
        settings.config().clone(),
        Opener(settings.clone()),
        ManagerConfig {
            // Fast: only whether it is closed; the hook does the rest.
            recycling_method: RecyclingMethod::Fast,
        },
    );
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .recycle_timeout(Some(limit))
        .pre_recycle(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                // Hooks are outside the pool's own timeouts.
                match tokio::time::timeout(limit, end_transaction(client)).await {
                    Ok(done) => done.map_err(HookError::Backend),
                    Err(_) => Err(HookError::message("no answer")),
                }
            })
        }))
        .build()
        .map_err(|e| ConnectError::Pool(e.to_string()))
}

/// Rolls back if a transaction is open. A bare ROLLBACK would do, but outside a transaction
/// the server writes a warning into its log, which would be one a batch.
async fn end_transaction(client: &ClientWrapper) -> Result<(), Error> {
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

/// Opens the pool's connections the way [`connect`](super::connect) does.
struct Opener(ConnectSettings);

type Opening<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Opener {
    fn connect(&self, _config: &Config) -> Opening<'_> {
        Box::pin(async move {
            match super::open(&self.0).await {
                Ok(opened) => Ok(opened),
                Err(error) => Err(carry(error).await),
            }
        })
    }
}

impl From<PoolError> for ConnectError {
    /// Gives back the reason why a connection of the pool was not made.
    fn from(error: PoolError) -> Self {
        let backend = match error {
            PoolError::Backend(backend) => backend,
            other => return ConnectError::Pool(other.to_string()),
        };
        let words = backend.to_string();
        backend
            .into_source()
            .and_then(|cause| cause.downcast::<io::Error>().ok())
            .and_then(|cause| cause.into_inner())
            .and_then(|cause| cause.downcast::<ConnectError>().ok())
            .map_or_else(|| ConnectError::Pool(words), |error| *error)
    }
}

/// Packs our error into the client library's, which has no public constructor but keeps
/// what a stream fails with: a session is started on a stream that fails with it.
async fn carry(error: ConnectError) -> Error {
    let mut config = Config::new();
    config.user("nobody").ssl_mode(SslMode::Disable);
    match config.connect_raw(FailingStream(Some(error)), NoTls).await {
        Err(error) => error,
        Ok(_) => unreachable!("a stream that fails starts no session"),
    }
}

/// Fails with the error at the first write.
struct FailingStream(Option<ConnectError>);

impl AsyncWrite for FailingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(match self.0.take() {
            Some(error) => io::Error::other(error),
            None => io::ErrorKind::BrokenPipe.into(),
        }))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for FailingStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn our_error_comes_back_whole_from_the_client_librarys() {
        let ours = ConnectError::UnknownDatabase {
            target: "t".to_owned(),
            reason: "none".to_owned(),
        };
        let text = ours.to_string();
        let back = ConnectError::from(PoolError::Backend(carry(ours).await));
        assert_eq!(back.to_string(), text);
        assert_eq!(back.sqlstate().unwrap().code(), "3D000");
    }

    #[test]
    fn a_pool_of_none_is_a_usage_error() {
        let settings = ConnectSettings::from_config(Config::new());
        assert!(pool(&settings, 0).unwrap_err().is_usage());
    }
}
