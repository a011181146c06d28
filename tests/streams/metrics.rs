//! The figures of a running stream, as Prometheus scrapes them, against the account at its end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::{Exposition, Feed, Files, Ran, Running, SMALL, Sink, rows, wait_until};

/// Where the stream says that it serves its figures.
fn address(stream: &mut Running) -> String {
    let mut found = None;
    wait_until("the address", || {
        let said = stream.stderr();
        found = said
            .lines()
            .find_map(|line| line.split_once("metrics at http://"))
            .and_then(|(_, rest)| rest.strip_suffix("/metrics"))
            .map(ToOwned::to_owned);
        found.is_some() || stream.has_ended()
    });
    found.unwrap_or_else(|| panic!("it serves no metrics: {}", stream.stderr()))
}

/// Head and body of the answer to GET.
fn get(address: &str, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_ascii_lowercase(), body.to_owned())
}

#[track_caller]
fn scrape(address: &str) -> Exposition {
    let (head, body) = get(address, "/metrics");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    let length = format!("content-length: {}", body.len());
    assert!(head.contains(&length), "{head}, but {} bytes", body.len());
    Exposition::parse(&body)
}

/// The last figures say what the summary says.
#[track_caller]
fn agree(ran: &Ran) {
    let figures = &ran.figures;
    let same = |series: &str, path: &str| {
        let (figure, number) = (figures.of(series), ran.number(path));
        // A reader of decimal numbers may err in the last bit.
        let close = (figure - number).abs() <= number.abs() * f64::EPSILON;
        assert!(close, "{series}, {path}: {figure}, {number}: {ran}");
    };
    same("pgrung_rows_read_total", "/rows/read");
    for outcome in [
        "inserted",
        "rejected",
        "already_loaded",
        "discarded",
        "dropped",
        "suppressed",
    ] {
        let series = format!("pgrung_rows_total{{outcome=\"{outcome}\"}}");
        same(&series, &format!("/rows/{outcome}"));
    }
    for reason in ["rows", "bytes", "wait", "end"] {
        let series = format!("pgrung_batches_total{{flush=\"{reason}\"}}");
        same(&series, &format!("/batches/flush/{reason}"));
    }
    same("pgrung_read_bytes_total", "/bytes_read");
    same("pgrung_retries_total", "/retries");
    same("pgrung_batch_fill_ratio", "/batches/fill_mean");
    same("pgrung_wait_duration_seconds_count", "/batches/count");
    same("pgrung_commit_duration_seconds_count", "/batches/count");
    for (name, key) in [("commit", "commit_latency_ms"), ("wait", "wait_ms")] {
        for (quantile, percentile) in [("0.5", "p50"), ("0.99", "p99")] {
            let series = format!("pgrung_{name}_duration_seconds{{quantile=\"{quantile}\"}}");
            let figure = figures.of(&series) * 1000.0;
            let number = ran.number(&format!("/{key}/{percentile}"));
            assert!(
                (figure - number).abs() < 1e-6,
                "{series}: {figure}, {number}"
            );
        }
    }
    assert_eq!(figures.of("pgrung_queue_batches"), 0.0, "{ran}");
    assert_eq!(figures.of("pgrung_spill_batches"), 0.0, "{ran}");
}

#[test]
fn a_running_stream_is_scraped_and_its_counters_only_grow() {
    let database = Sink::new();
    let load = database
        .load()
        .flags("--metrics 127.0.0.1:0 --max-wait 50ms");
    let mut stream = load.open();
    let feed = Feed::steady(stream.take_pipe(), 20_000, 10_000, "");
    let address = address(&mut stream);
    let mut before = scrape(&address);
    let mut grown = 0;
    while before.of(r#"pgrung_rows_total{outcome="inserted"}"#) < 15_000.0 {
        thread::sleep(Duration::from_millis(100));
        let now = scrape(&address);
        for (series, value) in before.growing() {
            assert!(
                now.of(series) >= value,
                "{series}: {value}, then {}",
                now.of(series)
            );
            grown += usize::from(now.of(series) > value);
        }
        before = now;
    }
    assert!(grown > 10, "nothing moves");
    let (head, _) = get(&address, "/");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let (head, _) = get(&address, "/nothing");
    assert!(head.starts_with("http/1.1 404 "), "{head}");
    feed.finish();
    let ran = stream.wait();
    ran.exits(0);
    agree(&ran);
    for (series, value) in before.growing() {
        assert!(ran.figures.of(series) >= value, "{series}: {ran}");
    }
    assert_eq!(ran.rows("loaded"), 20_000, "{ran}");
    assert!(TcpStream::connect(&address).is_err(), "it still listens");
}

#[test]
fn the_figures_know_rejects_and_drops() {
    let database = Sink::new();
    let load = database
        .load()
        .flags("--metrics 127.0.0.1:0 --overflow drop");
    let load = load.flags(SMALL).flags("--queue 1");
    let mut stream = load.open();
    stream.send(rows(1, 10));
    wait_until("the first batch", || database.count() == 10);
    stream.send("none,0,bad\n");
    stream.wait_for(r#"pgrung_rows_total{outcome="rejected"}"#, 1.0);
    let lock = database.lock("t");
    stream.send(rows(11, 1_000));
    let address = address(&mut stream);
    // Also while the server does not answer.
    wait_until("rows are dropped", || {
        scrape(&address).of(r#"pgrung_rows_total{outcome="dropped"}"#) > 900.0
    });
    assert!(scrape(&address).of("pgrung_dropped_bytes_total") > 900.0 * 10.0);
    assert_eq!(scrape(&address).of("pgrung_queue_capacity_batches"), 1.0);
    drop(lock);
    let ran = stream.end();
    ran.exits(3);
    agree(&ran);
    assert_eq!(ran.rows("read"), 1_011, "{ran}");
    assert_eq!(ran.rows("loaded"), database.count(), "{ran}");
}

#[test]
fn the_figures_know_what_is_on_disk() {
    let database = Sink::new();
    let dir = Files::new();
    let load = database.load().spill_to(dir.dir());
    let load = load.flags(SMALL).flags("--queue 1");
    let mut stream = load.open();
    stream.send(rows(1, 10));
    wait_until("the first batch", || database.count() == 10);
    let lock = database.lock("t");
    stream.send(rows(11, 1_000));
    stream.wait_for("pgrung_spill_batches", 90.0);
    stream.wait_for("pgrung_spill_bytes", 90.0);
    let spilled = stream.figures().of("pgrung_spilled_bytes_total");
    drop(lock);
    let ran = stream.end();
    ran.exits(0);
    agree(&ran);
    assert!(
        ran.figures.of("pgrung_spilled_bytes_total") >= spilled,
        "{ran}"
    );
    assert_eq!(ran.figures.of("pgrung_spill_bytes"), 0.0, "{ran}");
}

#[test]
fn a_port_that_is_taken_stops_the_load_before_its_first_row() {
    let database = Sink::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let ran = database
        .load()
        .args(["--metrics", &taken])
        .run_on(rows(1, 100));
    ran.exits(1).says(&["cannot listen", &taken]);
    assert_eq!(database.count(), 0);
}
