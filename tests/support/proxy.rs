//! Stands between loader and server, knows where the messages of PostgreSQL's protocol (version 3,
//! without TLS) begin and end, and deals with each as a test wants. The line itself may be long:
//! every byte then takes a while, and as many are on the way as are given.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Client,
    Server,
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Number of the connection (0-based).
    pub connection: usize,
    pub side: Side,
    /// Number among the messages of this side on all connections (0-based). With one worker the
    /// same load sends the same messages.
    pub number: usize,
    /// Its type; 0 for the startup message, which has none.
    pub tag: u8,
    /// What follows type and length.
    pub body: &'a [u8],
    /// Whether a batch's transaction has begun on this connection.
    pub in_batch: bool,
}

impl Message<'_> {
    /// Whether it is `COMMIT`, as a simple query.
    pub fn is_commit(&self) -> bool {
        self.side == Side::Client && self.tag == b'Q' && self.body == b"COMMIT\0"
    }

    /// Whether it begins the transaction of a batch.
    pub fn begins_batch(&self) -> bool {
        self.side == Side::Client && self.tag == b'Q' && self.body.starts_with(b"BEGIN ISOLATION")
    }

    /// Whether it is the COMMIT of a batch, not one of the ledger's own transactions.
    pub fn is_batch_commit(&self) -> bool {
        self.is_commit() && self.in_batch
    }
}

/// What is done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deal {
    /// It goes on.
    Forward,
    /// The connection ends before it.
    CutBefore,
    /// The connection ends in the middle of it.
    CutInside,
    /// The connection ends behind it.
    CutAfter,
    /// It is taken away; the next one goes on.
    Swallow,
    /// It goes on later.
    Delay(Duration),
    /// Nothing goes on any more in either direction, and both ends stay open.
    Blackhole,
    /// The connection to the loader ends, the one to the server stays open.
    Orphan,
}

type Rule = Box<dyn FnMut(&Message<'_>) -> Deal + Send>;

struct Shared {
    rule: Mutex<Rule>,
    seen: [AtomicUsize; 2],
    dealt: AtomicBool,
    closed: AtomicBool,
    /// What every byte takes, in each direction.
    delay: Duration,
    /// Where connections go; another one after a failover.
    upstream: AtomicU16,
    sockets: Mutex<Vec<TcpStream>>,
}

/// A proxy that ends with this value; so do its connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy to 127.0.0.1:`upstream`; `rule` sees every message.
    pub fn start(upstream: u16, rule: impl FnMut(&Message<'_>) -> Deal + Send + 'static) -> Self {
        Self::with(upstream, Duration::ZERO, Box::new(rule))
    }

    /// A long line to 127.0.0.1:`upstream`: `delay` in each direction.
    pub fn far(upstream: u16, delay: Duration) -> Self {
        Self::with(upstream, delay, Box::new(|_| Deal::Forward))
    }

    fn with(upstream: u16, delay: Duration, rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            rule: Mutex::new(rule),
            delay,
            seen: Default::default(),
            dealt: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            upstream: AtomicU16::new(upstream),
            sockets: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if accepting.closed.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                let upstream = accepting.upstream.load(Ordering::SeqCst);
                // A server that is down refuses; so do we.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) {
                    connect(number, client, server, &accepting);
                }
            }
        });
        Proxy { port, shared }
    }

    pub fn dsn(&self, database: &str) -> String {
        super::server::dsn("127.0.0.1", self.port, database)
    }

    /// Whether any message was not just forwarded.
    pub fn dealt(&self) -> bool {
        self.shared.dealt.load(Ordering::SeqCst)
    }

    /// From now on connections go there.
    pub fn lead_to(&self, upstream: u16) {
        self.shared.upstream.store(upstream, Ordering::SeqCst);
    }

    /// Ends all connections that are open now.
    pub fn cut_all(&self) {
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.cut_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// What both directions of a connection share.
struct Connection {
    number: usize,
    dark: AtomicBool,
    in_batch: AtomicBool,
}

fn connect(number: usize, client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
        let socket = socket.try_clone().unwrap();
        shared.sockets.lock().unwrap().push(socket);
    }
    let connection = Arc::new(Connection {
        number,
        dark: AtomicBool::new(false),
        in_batch: AtomicBool::new(false),
    });
    for side in [Side::Client, Side::Server] {
        let (client, server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (from, to) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        let pump = Pump {
            side,
            from,
            line: (!shared.delay.is_zero())
                .then(|| Line::to(to.try_clone().unwrap(), shared.delay)),
            to,
            shared: shared.clone(),
            connection: connection.clone(),
            pending: Vec::new(),
            started: side == Side::Server,
        };
        thread::spawn(move || pump.run());
    }
}

/// One direction of one connection.
struct Pump {
    side: Side,
    from: TcpStream,
    to: TcpStream,
    /// What is given to `to` goes this way, if it takes a while.
    line: Option<Line>,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    pending: Vec<u8>,
    /// Whether the startup message is over.
    started: bool,
}

/// The connection has ended.
struct Ended;

/// What takes a while: one thread gives later what another one takes.
struct Line {
    on_the_way: Sender<(Instant, Vec<u8>)>,
    delay: Duration,
}

impl Line {
    fn to(mut to: TcpStream, delay: Duration) -> Self {
        let (on_the_way, arriving) = channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || {
            for (due, bytes) in arriving {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
        Line { on_the_way, delay }
    }

    fn carry(&self, bytes: Vec<u8>) -> std::io::Result<()> {
        let sent = self.on_the_way.send((Instant::now() + self.delay, bytes));
        sent.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

impl Pump {
    fn run(mut self) {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = match self.from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            if self.connection.dark.load(Ordering::SeqCst) {
                continue;
            }
            self.pending.extend_from_slice(&buffer[..count]);
            if self.deal_with_pending().is_err() {
                return;
            }
        }
        // A long line ends behind what is on the way. In the dark neither end learns what became of
        // the other.
        if self.line.is_none() && !self.connection.dark.load(Ordering::SeqCst) {
            self.end();
        }
    }

    fn end(&self) {
        let _ = self.to.shutdown(Shutdown::Both);
        let _ = self.from.shutdown(Shutdown::Both);
    }

    fn forward(&mut self, out: &mut Vec<u8>) -> Result<(), Ended> {
        let out = std::mem::take(out);
        let written = match &self.line {
            Some(line) => line.carry(out),
            None => self.to.write_all(&out),
        };
        written.map_err(|_| {
            self.end();
            Ended
        })
    }

    /// Deals with every whole message at hand.
    fn deal_with_pending(&mut self) -> Result<(), Ended> {
        let mut pending = std::mem::take(&mut self.pending);
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(length) = message_length(&pending[at..], self.started) {
            let bytes = &pending[at..at + length];
            at += length;
            match self.deal(bytes) {
                Deal::Forward => out.extend_from_slice(bytes),
                Deal::Swallow => {}
                Deal::Delay(time) => {
                    self.forward(&mut out)?;
                    thread::sleep(time);
                    out.extend_from_slice(bytes);
                }
                deal @ (Deal::CutBefore | Deal::CutInside | Deal::CutAfter) => {
                    out.extend_from_slice(match deal {
                        Deal::CutBefore => &[],
                        Deal::CutInside => &bytes[..(length / 2).max(1)],
                        _ => bytes,
                    });
                    self.forward(&mut out)?;
                    self.end();
                    return Err(Ended);
                }
                Deal::Blackhole | Deal::Orphan => {
                    self.connection.dark.store(true, Ordering::SeqCst);
                    self.forward(&mut out)?;
                    return Ok(());
                }
            }
        }
        self.forward(&mut out)?;
        pending.drain(..at);
        self.pending = pending;
        Ok(())
    }

    fn deal(&mut self, bytes: &[u8]) -> Deal {
        let (tag, body) = if self.started {
            (bytes[0], &bytes[5..])
        } else {
            (0, &bytes[4..])
        };
        self.started = true;
        if self.side == Side::Client && tag == b'Q' && body.starts_with(b"BEGIN ISOLATION") {
            self.connection.in_batch.store(true, Ordering::SeqCst);
        }
        let mut rule = self.shared.rule.lock().unwrap();
        let message = Message {
            connection: self.connection.number,
            side: self.side,
            number: self.shared.seen[self.side as usize].fetch_add(1, Ordering::SeqCst),
            tag,
            body,
            in_batch: self.connection.in_batch.load(Ordering::SeqCst),
        };
        let deal = rule(&message);
        if deal != Deal::Forward {
            self.shared.dealt.store(true, Ordering::SeqCst);
        }
        if deal == Deal::Orphan {
            let client = match self.side {
                Side::Client => &self.from,
                Side::Server => &self.to,
            };
            let _ = client.shutdown(Shutdown::Both);
        }
        deal
    }
}

/// Length of the first message, type and length included, if it is there as a whole.
fn message_length(bytes: &[u8], started: bool) -> Option<usize> {
    let head = usize::from(started);
    let length = bytes.get(head..head + 4)?;
    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + head;
    (bytes.len() >= length).then_some(length)
}
