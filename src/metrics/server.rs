//! Serves the metrics over HTTP/1.1 (RFC 9112), one request a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{CONTENT_TYPE, MetricsError, Snapshot, render};
use crate::stop::Stop;

/// Longest head of a request; Prometheus sends some 300 bytes.
const MOST_HEAD_BYTES: usize = 8 * 1024;

/// Longest time for the head to come in, and again for the answer to go out.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections at once. Others wait in the system's queue; one that does nothing ends after
/// [`PATIENCE`].
const MOST_CONNECTIONS: usize = 16;

/// How long to go on reading after the answer: closing a connection with unread bytes would take
/// the answer back.
const LINGER: Duration = Duration::from_millis(500);

/// Pause after a connection could not be taken, so that a lack of file handles does not become a
/// busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens at `address` until `stop` is set; returns the address, whose port the system may have
/// chosen, and the task, which ends with the connections that are open then. `snapshot` is asked
/// at each request and must not block.
///
/// `/metrics` has the metrics, `/healthz` says `ok`, `/` says where they are.
///
/// # Errors
/// When the address cannot be listened at.
pub async fn serve(
    address: SocketAddr,
    snapshot: impl Fn() -> Snapshot + Send + Sync + 'static,
    stop: Arc<Stop>,
) -> Result<(SocketAddr, JoinHandle<()>), MetricsError> {
    let refused = |source| MetricsError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let task = tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, Arc::new(snapshot)) => {}
            () = stop.wait() => {}
        }
    });
    Ok((bound, task))
}

async fn accept<F>(listener: TcpListener, snapshot: Arc<F>)
where
    F: Fn() -> Snapshot + Send + Sync + 'static,
{
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // Dropped with this future: then the open connections end too.
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let snapshot = snapshot.clone();
                connections.spawn(async move {
                    // A client that went away is nobody's error.
                    let _ = converse(stream, snapshot.as_ref()).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// One request, one answer.
async fn converse(mut stream: TcpStream, snapshot: &impl Fn() -> Snapshot) -> io::Result<()> {
    let mut head = Vec::new();
    let answer = match timeout(PATIENCE, read_head(&mut stream, &mut head)).await {
        Ok(Ok(true)) => respond(&head, snapshot),
        Ok(Ok(false)) => Answer::refusal("431 Request Header Fields Too Large"),
        // Half a request and then nothing: nobody waits for an answer.
        Ok(Err(error)) => return Err(error),
        Err(_) => Answer::refusal("408 Request Timeout"),
    };
    timeout(PATIENCE, stream.write_all(&answer.bytes())).await??;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let drained = async { while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {} };
    let _ = timeout(LINGER, drained).await;
    Ok(())
}

/// Reads to the empty line that ends the head; false if it is too long.
async fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let ends = |end: &[u8]| memchr::memmem::find(head, end).is_some();
        if ends(b"\r\n\r\n") || ends(b"\n\n") {
            return Ok(head.len() <= MOST_HEAD_BYTES);
        }
        if head.len() >= MOST_HEAD_BYTES {
            return Ok(false);
        }
        if stream.read_buf(head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
    /// Whether the method was HEAD: the body's length is told, the body is not sent.
    only_head: bool,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
            only_head: false,
        }
    }

    fn refusal(status: &'static str) -> Self {
        Self::text(status, format!("{status}\n"))
    }

    fn bytes(&self) -> Vec<u8> {
        let Answer {
            status,
            content_type,
            body,
            ..
        } = self;
        // RFC 9110, 15.5.6: an answer 405 names the methods that are allowed.
        let allow = match status.starts_with("405") {
            true => "Allow: GET, HEAD\r\n",
            false => "",
        };
        let length = body.len();
        let body = if self.only_head { "" } else { body };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             {allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

fn respond(head: &[u8], snapshot: &impl Fn() -> Snapshot) -> Answer {
    let Some((method, path)) = request_line(head) else {
        return Answer::refusal("400 Bad Request");
    };
    if !["GET", "HEAD"].contains(&method) {
        return Answer::refusal("405 Method Not Allowed");
    }
    let mut answer = match path {
        "/metrics" => Answer {
            content_type: CONTENT_TYPE,
            ..Answer::text("200 OK", render(&snapshot()))
        },
        "/healthz" => Answer::text("200 OK", "ok\n"),
        "/" => Answer::text("200 OK", "pgrung: the metrics are at /metrics\n"),
        _ => Answer::refusal("404 Not Found"),
    };
    answer.only_head = method == "HEAD";
    answer
}

/// Method and path of the first line (RFC 9112, 3); `None` if it is no HTTP/1 request.
fn request_line(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_suffix('\r').unwrap_or(line).split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") || method.is_empty() {
        return None;
    }
    // A server must take the absolute form too (RFC 9112, 3.2.2).
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    Some((method, path.split('?').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    async fn start() -> (SocketAddr, Arc<Stop>, JoinHandle<()>) {
        let stop = Arc::new(Stop::default());
        let asked = AtomicU64::new(0);
        let snapshot = move || Snapshot {
            retries: asked.fetch_add(1, Ordering::SeqCst) + 1,
            ..Snapshot::default()
        };
        let (address, task) = serve("127.0.0.1:0".parse().unwrap(), snapshot, stop.clone())
            .await
            .unwrap();
        (address, stop, task)
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn status(address: SocketAddr, request: &str) -> String {
        let answer = ask(address, request.as_bytes()).await;
        answer.lines().next().unwrap_or_default().to_string()
    }

    #[tokio::test]
    async fn each_scrape_has_the_figures_of_its_moment() {
        let (address, _, _) = start().await;
        for count in 1..4 {
            let answer = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"));
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
            assert!(head.contains("Connection: close"));
            assert!(body.contains(&format!("\npgrung_retries_total {count}\n")));
        }
    }

    #[tokio::test]
    async fn only_what_there_is_can_be_asked_for() {
        let (address, _, _) = start().await;
        for (request, expected) in [
            ("GET /healthz HTTP/1.1", "200 OK"),
            ("GET / HTTP/1.0", "200 OK"),
            ("GET /metrics?x=1 HTTP/1.1", "200 OK"),
            ("GET http://h:9187/metrics HTTP/1.1", "200 OK"),
            ("HEAD /metrics HTTP/1.1", "200 OK"),
            ("GET /metrics/ HTTP/1.1", "404 Not Found"),
            ("GET /../etc/passwd HTTP/1.1", "404 Not Found"),
            ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
            ("GET /metrics", "400 Bad Request"),
            ("PRI * HTTP/2.0", "400 Bad Request"),
            ("GET  /metrics HTTP/1.1", "400 Bad Request"),
            ("", "400 Bad Request"),
        ] {
            let line = status(address, &format!("{request}\r\n\r\n")).await;
            assert_eq!(line, format!("HTTP/1.1 {expected}"), "{request}");
        }
        let answer = ask(address, b"POST / HTTP/1.1\r\n\r\n").await;
        assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"));
        let answer = ask(address, b"HEAD /healthz HTTP/1.1\r\n\r\n").await;
        assert!(answer.contains("Content-Length: 3\r\n") && answer.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_refused_by_its_length() {
        let (address, _, _) = start().await;
        let request = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(3 * MOST_HEAD_BYTES));
        let line = status(address, &request).await;
        assert_eq!(line, "HTTP/1.1 431 Request Header Fields Too Large");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_does_not_stay() {
        let (address, _, _) = start().await;
        let begun = std::time::Instant::now();
        let line = status(address, "GET /metrics HTTP/1.1\r\n").await;
        assert_eq!(line, "HTTP/1.1 408 Request Timeout");
        assert!(begun.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn more_clients_than_room_wait_for_their_turn() {
        let (address, _, _) = start().await;
        let mut idle = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let waiting = tokio::spawn(async move { status(address, "GET / HTTP/1.1\r\n\r\n").await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        idle.pop();
        assert_eq!(waiting.await.unwrap(), "HTTP/1.1 200 OK");
    }

    #[tokio::test]
    async fn it_ends_with_the_load() {
        let (address, stop, task) = start().await;
        let _idle = TcpStream::connect(address).await.unwrap();
        stop.set();
        timeout(Duration::from_secs(1), task)
            .await
            .unwrap()
            .unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let (address, _, _) = start().await;
        let error = serve(address, Snapshot::default, Arc::new(Stop::default()))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("--metrics {address}: cannot listen: ")),
            "{text}"
        );
    }
}
