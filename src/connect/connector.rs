//! Turns a socket into a TLS stream and notes which step of connecting is under way.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How far one attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// TCP or Unix socket connect.
    Reaching = 0,
    /// SSLRequest sent, TLS is a must.
    AskingTls = 1,
    /// SSLRequest sent, TLS is a wish; also the login, if the server has no TLS.
    OfferingTls = 2,
    Handshake = 3,
    /// Startup message, authentication, session attributes.
    LoggingIn = 4,
}

impl Step {
    pub(super) fn doing(self) -> &'static str {
        match self {
            Step::Reaching => "connecting",
            Step::AskingTls | Step::OfferingTls => "starting the session",
            Step::Handshake => "agreeing on TLS",
            Step::LoggingIn => "logging in",
        }
    }
}

/// The step of one attempt, shared with the connector that `tokio-postgres` takes over.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

impl Progress {
    pub(super) fn step(&self) -> Step {
        match self.0.load(Ordering::Relaxed) {
            0 => Step::Reaching,
            1 => Step::AskingTls,
            2 => Step::OfferingTls,
            3 => Step::Handshake,
            _ => Step::LoggingIn,
        }
    }

    fn set(&self, step: Step) {
        self.0.store(step as u8, Ordering::Relaxed);
    }
}

/// Makes TLS streams, or none: without `tls` the config's ssl mode must be `Disable`.
pub(super) struct Connector {
    pub(super) tls: Option<MakeRustlsConnect>,
    /// False with `prefer`: a server without TLS is then logged in to in plain text.
    pub(super) tls_required: bool,
    pub(super) progress: Progress,
}

type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl MakeTlsConnect<Socket> for Connector {
    type Stream = RustlsStream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    /// Called once the socket is connected, before anything is sent.
    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Handshake> {
        self.progress.set(match &self.tls {
            None => Step::LoggingIn,
            Some(_) if self.tls_required => Step::AskingTls,
            Some(_) => Step::OfferingTls,
        });
        let inner = self.tls.as_mut().map(|tls| {
            let Ok(inner) = MakeTlsConnect::<Socket>::make_tls_connect(tls, domain);
            inner
        });
        Ok(Handshake {
            inner,
            progress: self.progress.clone(),
        })
    }
}

/// One TLS handshake to come.
pub(super) struct Handshake {
    inner: Option<RustlsConnect>,
    progress: Progress,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = RustlsStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<RustlsStream>> + Send>>;

    /// Called only after the server agreed to TLS.
    fn connect(self, stream: Socket) -> Self::Future {
        self.progress.set(Step::Handshake);
        Box::pin(async move {
            let inner = self
                .inner
                .ok_or_else(|| io::Error::other("TLS is switched off"))?;
            let stream = inner.connect(stream).await?;
            self.progress.set(Step::LoggingIn);
            Ok(stream)
        })
    }
}
