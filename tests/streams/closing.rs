//! The end of a stream: the source's, in the middle of a record too, and SIGTERM.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::stream::write_aside;
use crate::support::{Feed, Ran, SMALL, Sink, rows, seeded, times, wait_until};

#[test]
fn a_last_line_without_an_end_is_a_row() {
    let database = Sink::new();
    let text = rows(1, 25);
    let ran = database.load().run_on(text.trim_end());
    ran.exits(0);
    database.holds(25);
}

#[test]
fn a_record_that_comes_in_pieces_is_one_row() {
    let database = Sink::new();
    let mut stream = database.load().flags("--max-wait 20ms").open();
    for piece in [
        "1,0,row 1;\n2,0,\"ro",
        "w 2;\nand\n",
        "more\"",
        "\n",
        "3,0,row 3;",
    ] {
        stream.send(piece);
        thread::sleep(Duration::from_millis(60));
    }
    stream.end().exits(0);
    database.holds(3);
    assert_eq!(
        database.one("SELECT payload = E'row 2;\\nand\\nmore' FROM t WHERE id = 2"),
        "t"
    );
}

#[test]
fn a_source_that_ends_before_its_first_row_is_an_empty_load() {
    let database = Sink::new();
    let ran = database.load().run_on("");
    ran.exits(0);
    assert_eq!(ran.rows("read"), 0, "{ran}");
    assert_eq!(database.count(), 0);
}

/// Rows that are complete in the first `bytes` of `text`.
fn complete_rows(text: &str, bytes: u64) -> u64 {
    let bytes = (bytes as usize).min(text.len());
    text.as_bytes()[..bytes]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count() as u64
}

/// Every complete row that was taken from the pipe is in the table, and the account says so.
#[track_caller]
fn drained(database: &Sink, ran: &Ran, text: &str) {
    ran.exits(143).says(&["interrupted"]);
    let taken = ran.number("/bytes_read") as u64;
    let complete = complete_rows(text, taken);
    assert_eq!(database.count(), complete, "{taken} bytes taken: {ran}");
    database.holds(complete);
    assert_eq!(ran.rows("loaded"), complete, "{ran}");
    assert_eq!(ran.rows("read"), complete, "{ran}");
}

#[test]
fn sigterm_at_a_random_time_drains_what_was_taken_from_the_pipe() {
    let mut random = seeded("sigterm");
    for _ in 0..times(6, 60) {
        let database = Sink::new();
        let batch_rows = random.u64(1..500).to_string();
        let load = database
            .load()
            .flags(&format!("--batch-rows {batch_rows} --max-wait 200ms"));
        let mut stream = load.args(["-j", &random.u8(1..4).to_string()]).open();
        let rate = random.u64(50..5_000);
        let feed = Feed::steady(stream.take_pipe(), u64::MAX, rate, "");
        wait_until("rows come", || database.count() > 0);
        thread::sleep(Duration::from_millis(random.u64(0..600)));
        stream.signal(Signal::SIGTERM);
        let ran = stream.wait();
        let fed = feed.stop();
        drained(&database, &ran, &fed.text);
    }
}

/// A source that is never idle: there is always more to take.
#[test]
fn sigterm_ends_a_stream_whose_source_never_pauses() {
    let database = Sink::new();
    let load = database.load().flags("--batch-rows 500 --grace 30s -j 1");
    let mut stream = load.open();
    let text = rows(1, 1_500_000);
    let writer = write_aside(stream.take_pipe(), text.clone());
    wait_until("rows come", || database.count() > 0);
    thread::sleep(Duration::from_millis(200));
    stream.signal(Signal::SIGTERM);
    let ran = stream.wait();
    let written = writer.join().unwrap();
    assert!(
        written.is_err(),
        "all was taken, which proves nothing: {ran}"
    );
    drained(&database, &ran, &text);
}

#[test]
fn sigterm_in_the_middle_of_a_record_says_how_much_of_it_is_not_loaded() {
    let database = Sink::new();
    let mut stream = database.load().flags("--max-wait 10s").open();
    stream.send(rows(1, 5) + "6,0,\"half a");
    stream.wait_for("pgrung_read_bytes_total", 100.0);
    // Taken from the pipe, and on its way through the reader.
    thread::sleep(Duration::from_millis(200));
    stream.signal(Signal::SIGTERM);
    let ran = stream.wait();
    ran.exits(143).says(&["11 bytes of an unfinished record"]);
    database.holds(5);
    assert_eq!(ran.rows("loaded"), 5, "{ran}");
}

#[test]
fn sigterm_waits_for_a_server_that_does_not_answer_as_long_as_grace() {
    for (grace, waits) in [("500ms", false), ("60s", true)] {
        let database = Sink::new();
        let mut stream = database.load().flags(SMALL).args(["--grace", grace]).open();
        stream.send(rows(1, 20));
        wait_until("rows come", || database.count() == 20);
        let lock = database.lock("t");
        stream.send(rows(21, 20));
        wait_until("the next rows wait", || database.waits_for_lock());
        stream.signal(Signal::SIGTERM);
        if waits {
            thread::sleep(Duration::from_millis(700));
            stream.still_runs();
            drop(lock);
            stream.wait().exits(143);
            database.holds(40);
        } else {
            // The lock is held until the loader has ended.
            let ran = stream.wait();
            drop(lock);
            ran.exits(143).says(&["20 rows of this run are committed"]);
            assert_eq!(ran.rows("read"), 20, "{ran}");
            database.holds(20);
        }
    }
}
