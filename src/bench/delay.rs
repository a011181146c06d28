//! A wire that is longer than it is: forwards connections to the server, each byte half a round
//! trip late in either direction, with room for everything that is under way.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::connect::ConnectSettings;

/// Bytes moved in one step.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks under way in one direction: 64 MiB, more than any window of TCP.
const CHUNKS_UNDER_WAY: usize = 1024;

/// A delayed way to a server; it ends when dropped.
pub struct Delay {
    settings: ConnectSettings,
    accepting: JoinHandle<()>,
}

impl Delay {
    /// Listens on loopback and forwards to the first host of `settings`, `round_trip` away.
    ///
    /// # Errors
    /// When there is no host, or loopback cannot be listened at.
    pub async fn start(settings: &ConnectSettings, round_trip: Duration) -> io::Result<Self> {
        let server = Server::of(settings.config())
            .ok_or_else(|| io::Error::other("no host to connect to"))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let config = settings.config();
        let mut delayed = Config::new();
        delayed
            .host("127.0.0.1")
            .port(listener.local_addr()?.port());
        if let Some(user) = config.get_user() {
            delayed.user(user);
        }
        if let Some(dbname) = config.get_dbname() {
            delayed.dbname(dbname);
        }
        if let Some(password) = config.get_password() {
            delayed.password(password);
        }
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.join(client, round_trip / 2).await });
            }
        });
        Ok(Delay {
            settings: ConnectSettings::from_config(delayed),
            accepting,
        })
    }

    /// How to connect through the delay. Without TLS: the server is on this side of the wire.
    pub fn settings(&self) -> &ConnectSettings {
        &self.settings
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone)]
enum Server {
    Tcp(String, u16),
    Unix(std::path::PathBuf),
}

impl Server {
    fn of(config: &Config) -> Option<Self> {
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Some(match config.get_hosts().first()? {
            Host::Tcp(host) => Server::Tcp(host.clone(), port),
            Host::Unix(dir) => Server::Unix(dir.join(format!(".s.PGSQL.{port}"))),
        })
    }

    /// Joins a client with the server until either of them ends.
    async fn join(self, client: TcpStream, one_way: Duration) {
        // Small messages must not wait for company: that would be another delay.
        let _ = client.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        match self {
            Server::Tcp(host, port) => {
                let Ok(server) = TcpStream::connect((host.as_str(), port)).await else {
                    return;
                };
                let _ = server.set_nodelay(true);
                let (from_server, to_server) = server.into_split();
                tokio::join!(
                    forward(from_client, to_server, one_way),
                    forward(from_server, to_client, one_way)
                );
            }
            Server::Unix(path) => {
                let Ok(server) = UnixStream::connect(path).await else {
                    return;
                };
                let (from_server, to_server) = server.into_split();
                tokio::join!(
                    forward(from_client, to_server, one_way),
                    forward(from_server, to_client, one_way)
                );
            }
        }
    }
}

/// Forwards one direction: what is read now is written `delay` later, in order.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
) {
    let (entrance, mut exit) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_UNDER_WAY);
    let read = async move {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            match from.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => chunk.truncate(count),
            }
            if entrance
                .send((Instant::now() + delay, chunk))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = exit.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other side sees the end as it came.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_out_is_what_went_in_and_comes_late() {
        let (mut near, inner) = tokio::io::duplex(64);
        let (outer, mut far) = tokio::io::duplex(64);
        let delay = Duration::from_millis(30);
        let forwarding = tokio::spawn(forward(inner, outer, delay));
        let begun = Instant::now();
        near.write_all(b"first ").await.unwrap();
        near.write_all(b"second").await.unwrap();
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "first second");
        assert!(begun.elapsed() >= delay);
        forwarding.await.unwrap();
    }
}
