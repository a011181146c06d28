//! A wire that is longer than it is: forwards connections to the server, each byte half a round
//! trip late in either direction, with room for everything that is under way.
//!
//! On threads: the timers of tokio count in milliseconds and round up, which made 3.5 ms of 1 ms.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
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
                if let Ok(client) = client.into_std() {
                    let server = server.clone();
                    // Without threads the connection is closed, and whoever made it says so.
                    let _ = server.join(client, round_trip / 2);
                }
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
    Unix(PathBuf),
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
    fn join(self, client: TcpStream, one_way: Duration) -> io::Result<()> {
        client.set_nonblocking(false)?;
        let client = Wire::Tcp(client);
        let connect = move || -> io::Result<()> {
            let server = match &self {
                Server::Tcp(host, port) => Wire::Tcp(TcpStream::connect((host.as_str(), *port))?),
                Server::Unix(path) => Wire::Unix(UnixStream::connect(path)?),
            };
            // Small messages must not wait for company: that would be another delay.
            for wire in [&client, &server] {
                if let Wire::Tcp(stream) = wire {
                    stream.set_nodelay(true)?;
                }
            }
            forward(client.another()?, server.another()?, one_way)?;
            forward(server, client, one_way)
        };
        named("connect").spawn(connect).map(drop)
    }
}

/// One end of a connection.
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// The same end once more.
    fn another(&self) -> io::Result<Self> {
        Ok(match self {
            Wire::Tcp(stream) => Wire::Tcp(stream.try_clone()?),
            Wire::Unix(stream) => Wire::Unix(stream.try_clone()?),
        })
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.read(into),
            Wire::Unix(stream) => stream.read(into),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Wire::Tcp(stream) => stream.write_all(bytes),
            Wire::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn shut_down(&self, how: Shutdown) {
        // It may be gone already.
        let _ = match self {
            Wire::Tcp(stream) => stream.shutdown(how),
            Wire::Unix(stream) => stream.shutdown(how),
        };
    }
}

/// Bytes under way, and when they are due.
type UnderWay = (Instant, Vec<u8>);

/// Forwards one direction: what is read now is written `delay` later, in order.
fn forward(from: Wire, to: Wire, delay: Duration) -> io::Result<()> {
    let (entrance, exit) = sync_channel(CHUNKS_UNDER_WAY);
    named("read").spawn(move || take_in(from, &entrance, delay))?;
    named("write").spawn(move || let_out(to, &exit))?;
    Ok(())
}

fn named(part: &str) -> thread::Builder {
    thread::Builder::new().name(format!("pgrung-delay-{part}"))
}

fn take_in(mut from: Wire, entrance: &SyncSender<UnderWay>, delay: Duration) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        match from.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => chunk.truncate(count),
        }
        if entrance.send((Instant::now() + delay, chunk)).is_err() {
            return;
        }
    }
}

fn let_out(mut to: Wire, exit: &Receiver<UnderWay>) {
    // The system wakes sleepers up to 50 microseconds late, unless it is told not to.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_timerslack(1);
    while let Ok((due, chunk)) = exit.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            // Nobody reads any more: neither need the other side write.
            to.shut_down(Shutdown::Both);
            return;
        }
    }
    // The other side sees the end as it came.
    to.shut_down(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    /// Answers every byte with the same byte.
    fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nodelay(true).unwrap();
                let mut buf = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buf) {
                    stream.write_all(&buf[..read]).unwrap();
                }
            }
        });
        port
    }

    /// A connection to the echo, so far away.
    async fn far_echo(round_trip: Duration) -> (Delay, TcpStream) {
        let mut config = Config::new();
        config.host("127.0.0.1").port(echo());
        let settings = ConnectSettings::from_config(config);
        let delay = Delay::start(&settings, round_trip).await.unwrap();
        let port = delay.settings().config().get_ports()[0];
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        (delay, stream)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_round_trip_takes_what_was_asked_for_and_hardly_more() {
        for round_trip in [Duration::from_micros(300), Duration::from_millis(1)] {
            let (_delay, mut stream) = far_echo(round_trip).await;
            let ping = || {
                let sent = Instant::now();
                stream.write_all(b"?").unwrap();
                stream.read_exact(&mut [0]).unwrap();
                sent.elapsed()
            };
            // On a busy machine any of them may be late; none may be early.
            let least = std::iter::repeat_with(ping).take(300).min().unwrap();
            assert!(least >= round_trip, "{least:?}, asked for {round_trip:?}");
            let most = round_trip + Duration::from_micros(500);
            assert!(least < most, "{least:?}, asked for {round_trip:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_comes_out_is_what_went_in_and_the_end_comes_too() {
        let (_delay, mut stream) = far_echo(Duration::from_millis(20)).await;
        let sent: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
        let mut reading = stream.try_clone().unwrap();
        let read = std::thread::spawn(move || {
            let mut received = Vec::new();
            reading.read_to_end(&mut received).unwrap();
            received
        });
        stream.write_all(&sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(read.join().unwrap() == sent);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ends_when_it_is_dropped() {
        let (delay, mut stream) = far_echo(Duration::from_millis(1)).await;
        let port = delay.settings().config().get_ports()[0];
        stream.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        drop(delay);
        let refused = || TcpStream::connect(("127.0.0.1", port)).is_err();
        while !refused() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
