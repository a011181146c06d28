//! What can be told from a session about whether a pooler stands before the server: a pooler hands
//! out keys for cancellation of its own, a server hands out one with its process.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Client;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Names of statements that are passed over at most: a few milliseconds.
const MOST_SKIPPED: u32 = 20_000;

/// The server process that the login named (BackendKeyData). The session is the server's own, with
/// nothing between that could change it for another, exactly if `pg_backend_pid()` is the same.
pub fn process_of_login(client: &Client) -> Option<i32> {
    // The client library keeps the number to itself, but for a request to cancel; this one goes
    // nowhere. Nothing in it waits.
    let paper = Paper::default();
    let written = paper.clone();
    let request = client.cancel_token();
    request
        .cancel_query_raw(paper, Unsealed)
        .now_or_never()?
        .ok()?;
    let written = written.0.lock().ok()?;
    // Length, code, process and secret, of four bytes each.
    let process = written.last_chunk::<16>()?.get(8..12)?;
    Some(i32::from_be_bytes(process.try_into().ok()?))
}

/// Passes over a random number of the names that the client library gives to statements. They
/// count from 0 in every process: behind a pooler another program may have left its own there.
pub async fn skip_statement_names(client: &Client) {
    for _ in 0..fastrand::u32(..MOST_SKIPPED) {
        // No message can hold it, so it is refused before it is sent, but behind the count.
        let _ = client.prepare("\0").await;
    }
}

/// Takes what is written; whoever asks for TLS is told to go on.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Paper {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        answer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        answer.put_slice(b"S");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paper {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Ok(mut written) = self.0.lock() {
            written.extend_from_slice(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for Paper {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// TLS that changes nothing.
struct Unsealed;

impl TlsConnect<Paper> for Unsealed {
    type Stream = Paper;
    type Error = Infallible;
    type Future = Ready<Result<Paper, Infallible>>;

    fn connect(self, paper: Paper) -> Self::Future {
        ready(Ok(paper))
    }
}
