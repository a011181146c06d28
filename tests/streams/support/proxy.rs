//! A line between loader and server on which every byte takes a while.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// The line. It carries as much as it is given; only the way takes time.
pub struct Proxy {
    pub port: u16,
}

impl Proxy {
    /// Leads to 127.0.0.1:`upstream`; `delay` in each direction.
    pub fn start(upstream: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    to.set_nodelay(true).unwrap();
                    carry(from.try_clone().unwrap(), to.try_clone().unwrap(), delay);
                }
            }
        });
        Proxy { port }
    }
}

/// One direction: one thread takes, one gives later, so that many bytes are on the way at once.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (on_the_way, arriving) = channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let due = Instant::now() + delay;
            if on_the_way.send((due, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in arriving {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
