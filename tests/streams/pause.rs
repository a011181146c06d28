//! A server that stands still while the source does not: each policy of overflow.

use std::thread;
use std::time::Duration;

use crate::support::{Cmd, Feed, Files, Ran, SMALL, Server, Sink, nothing_in, torture, wait_until};

/// Rows a second, and the bytes that fill each of them up: 20 MB/s, far more during the pause than
/// the loader may hold.
const RATE: u64 = 20_000;
const PADDING: usize = 1_000;

/// Most memory of a loader whose buffers are five batches of 256 KiB. Without any rows it takes
/// about 15 MB; the source writes at least 80 MB.
const MOST_MEMORY: f64 = 40e6;

/// Loads from a steady source into a server that stands still for a while. Returns how it ended,
/// what it had said when the pause was over, and the number of rows written. `stalls`: whether the
/// source must wait meanwhile.
fn paused(server: &Server, load: &Cmd, stalls: bool) -> (Ran, String, u64) {
    let seconds = if torture() { 10 } else { 3 };
    let last = RATE * (seconds + 1);
    let mut stream = load
        .clone()
        .flags("-j 1 --batch-bytes 256KiB --max-wait 100ms")
        .open();
    let feed = Feed::steady(stream.take_pipe(), last, RATE, &"x".repeat(PADDING));
    stream.wait_for(r#"pgrung_rows_total{outcome="inserted"}"#, 1_000.0);
    let pause = server.pause();
    thread::sleep(Duration::from_secs(seconds));
    let said = stream.stderr();
    assert!(
        !stalls || !feed.is_finished(),
        "more is read than buffers hold"
    );
    drop(pause);
    let fed = feed.finish();
    assert_eq!(fed.rows, last, "{}", stream.stderr());
    let ran = stream.wait();
    assert_eq!(ran.rows("read"), last, "{ran}");
    let memory = ran.number("/peak_memory_bytes");
    assert!(memory < MOST_MEMORY, "{memory} bytes: {ran}");
    (ran, said, last)
}

#[test]
fn a_paused_server_stalls_the_pipe_under_block_and_nothing_is_lost() {
    let server = Server::start(&[]);
    let database = Sink::on(&server);
    let (ran, said, last) = paused(&server, &database.load().flags("--overflow block"), true);
    ran.exits(0);
    assert_eq!(ran.rows("loaded"), last, "{ran}");
    database.holds(last);
    assert_eq!(ran.rows("dropped"), 0, "{ran}");
    assert_eq!(ran.number("/retries"), 0.0, "{ran}");
    assert!(!said.contains("slower"), "{said}");
}

#[test]
fn a_paused_server_drops_rows_under_drop_and_every_one_is_counted() {
    let server = Server::start(&[]);
    let database = Sink::on(&server);
    let (ran, said, last) = paused(&server, &database.load().flags("--overflow drop"), false);
    ran.exits(3);
    let dropped = ran.rows("dropped");
    assert!(dropped > RATE, "{ran}");
    assert_eq!(database.count() + dropped, last, "{ran}");
    assert_eq!(ran.rows("loaded"), database.count(), "{ran}");
    database.holds_no_row_twice();
    assert!(
        said.contains("rows dropped so far"),
        "not said at once: {said}"
    );
    assert!(ran.stdout.contains("dropped"), "{ran}");
    let bytes = ran.figures.of("pgrung_dropped_bytes_total");
    assert!(bytes > (dropped * PADDING as u64) as f64, "{bytes}: {ran}");
}

#[test]
fn a_paused_server_fills_the_disk_under_spill_and_gets_every_row_in_order() {
    let server = Server::start(&[]);
    let database = Sink::on(&server);
    let dir = Files::new();
    let (ran, said, last) = paused(&server, &database.load().spill_to(dir.dir()), false);
    ran.exits(0);
    assert_eq!(ran.rows("loaded"), last, "{ran}");
    database.holds(last);
    let out_of_order =
        "SELECT count(*) FROM (SELECT id < lag(id) OVER (ORDER BY ctid) AS back FROM t) s
                        WHERE back";
    assert_eq!(database.number(out_of_order), 0);
    assert!(
        said.contains("batches go to disk"),
        "not said at once: {said}"
    );
    assert!(ran.figures.of("pgrung_spilled_bytes_total") > 0.0, "{ran}");
    assert_eq!(ran.figures.of("pgrung_spill_bytes"), 0.0, "{ran}");
    nothing_in(dir.dir());
}

/// Rejects are part of the law.
#[test]
fn bad_rows_of_a_stream_are_put_aside_on_their_way_over_the_disk() {
    let database = Sink::new();
    let dir = Files::new();
    let load = database.load().spill_to(dir.dir());
    let mut stream = load.flags(SMALL).open();
    stream.send("1,0,row 1;\n");
    wait_until("the first row", || database.count() == 1);
    let lock = database.lock("t");
    for id in 1..20 {
        stream.send(format!("{0},0,row {0};\nnone,0,bad\n", id + 1));
        thread::sleep(Duration::from_millis(25));
    }
    stream.wait_for("pgrung_spill_batches", 1.0);
    drop(lock);
    let ran = stream.end();
    ran.exits(3);
    assert_eq!(ran.rows("read"), 39, "{ran}");
    assert_eq!(ran.rows("rejected"), 19, "{ran}");
    assert_eq!(database.number("SELECT count(*) FROM pgrung.rejects"), 19);
    database.holds(20);
}
