//! Serves the metrics over HTTP/1.1 (RFC 9112), one request a connection.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{CONTENT_TYPE as EXPOSITION, MetricsError, Snapshot, render};
use crate::stop::Stop;

/// Longest head of a request, and the least hyper can be held to; Prometheus sends some 300 bytes.
const MOST_HEAD_BYTES: usize = 8 * 1024;

/// Longest time from taking a connection to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections at once. Others wait in the system's queue; one that does nothing ends after
/// [`PATIENCE`].
const MOST_CONNECTIONS: usize = 16;

/// Pause after a connection could not be taken, so that a lack of file handles does not become a
/// busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound address; until [`Listener::serve`] clients wait.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Binds `address`; port 0 lets the system choose one.
///
/// # Errors
/// When the address cannot be listened at.
pub async fn listen(address: SocketAddr) -> Result<Listener, MetricsError> {
    let refused = |source| MetricsError::Listen { address, source };
    let socket = TcpListener::bind(address).await.map_err(refused)?;
    let address = socket.local_addr().map_err(refused)?;
    Ok(Listener { socket, address })
}

impl Listener {
    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `done` is set; then the task ends, and so do the connections that are open.
    /// `snapshot` is asked at each request and must not block.
    ///
    /// `/metrics` has the metrics, `/healthz` says `ok`, `/` says where they are.
    pub fn serve<F>(self, snapshot: F, done: Arc<Stop>) -> JoinHandle<()>
    where
        F: Fn() -> Snapshot + Send + Sync + 'static,
    {
        tokio::spawn(async move {
            tokio::select! {
                () = accept(self.socket, Arc::new(snapshot)) => {}
                () = done.wait() => {}
            }
        })
    }
}

async fn accept<F>(socket: TcpListener, snapshot: Arc<F>)
where
    F: Fn() -> Snapshot + Send + Sync + 'static,
{
    // Dropped with this future: then the open connections end too.
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= MOST_CONNECTIONS {
            // How a connection ended is nobody's error: the client went away, or was too slow.
            connections.join_next().await;
        }
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let snapshot = snapshot.clone();
        let service = service_fn(move |request| {
            ready(Ok::<_, Infallible>(answer(&request, snapshot.as_ref())))
        });
        let connection = http1::Builder::new()
            .keep_alive(false)
            .half_close(true)
            .max_buf_size(MOST_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(timeout(PATIENCE, connection));
    }
}

/// The answer to one request; hyper leaves the body out where the method is HEAD.
fn answer<B>(request: &Request<B>, snapshot: &impl Fn() -> Snapshot) -> Response<String> {
    let allowed = [Method::GET, Method::HEAD].contains(request.method());
    let text = |status, text: &str| (status, "text/plain; charset=utf-8", text.to_owned());
    let (status, kind, body) = match request.uri().path() {
        _ if !allowed => text(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed\n"),
        "/metrics" => (StatusCode::OK, EXPOSITION, render(&snapshot())),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/" => text(StatusCode::OK, "pgrung: the metrics are at /metrics\n"),
        _ => text(StatusCode::NOT_FOUND, "404 Not Found\n"),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !allowed {
        // RFC 9110, 15.5.6: an answer 405 names the methods that are allowed.
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn start() -> (SocketAddr, Arc<Stop>, JoinHandle<()>) {
        let stop = Arc::new(Stop::default());
        let asked = AtomicU64::new(0);
        let snapshot = move || Snapshot {
            retries: asked.fetch_add(1, Ordering::SeqCst) + 1,
            ..Snapshot::default()
        };
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        (
            listener.address(),
            stop.clone(),
            listener.serve(snapshot, stop),
        )
    }

    /// What comes back until the connection ends, in whatever way.
    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Code and reason of the answer; nothing if the connection ends without one.
    async fn status(address: SocketAddr, request: &str) -> String {
        let answer = ask(address, request.as_bytes()).await;
        let line = answer.lines().next().unwrap_or_default();
        line.split_once(' ').unwrap_or_default().1.to_string()
    }

    #[tokio::test]
    async fn each_scrape_has_the_figures_of_its_moment() {
        let (address, _, _) = start().await;
        for count in 1..4 {
            let answer = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
            assert!(head.contains("connection: close"));
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
            ("GET  /metrics HTTP/1.1", "400 Bad Request"),
        ] {
            let line = status(address, &format!("{request}\r\n\r\n")).await;
            assert_eq!(line, expected, "{request}");
        }
        let answer = ask(address, b"POST / HTTP/1.1\r\n\r\n").await;
        assert!(answer.contains("\r\nallow: GET, HEAD\r\n"));
        let answer = ask(address, b"HEAD /healthz HTTP/1.1\r\n\r\n").await;
        assert!(answer.contains("content-length: 3\r\n") && answer.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_refused_by_its_length() {
        let (address, _, _) = start().await;
        let request = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(3 * MOST_HEAD_BYTES));
        let line = status(address, &request).await;
        assert_eq!(line, "431 Request Header Fields Too Large");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_or_never_comes_to_an_end_does_not_stay() {
        let (address, _, _) = start().await;
        let begun = Instant::now();
        let trickle = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
            while stream.write_all(&head).await.is_ok() {
                head = b"x".to_vec();
                tokio::time::sleep(PATIENCE / 50).await;
            }
            String::new()
        };
        let answers = tokio::join!(
            status(address, ""),
            status(address, "GET / HTTP/1.1\r\n"),
            trickle
        );
        assert_eq!(answers, Default::default());
        assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < 2 * PATIENCE);
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
        assert_eq!(waiting.await.unwrap(), "200 OK");
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
        let error = listen(address).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("--metrics {address}: cannot listen: ")),
            "{text}"
        );
    }
}
