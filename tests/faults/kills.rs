//! The loader dies: at random times, and at each step of a transaction.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::input::Line;
use crate::support::{
    Case, Cmd, Database, Fate, Input, Kind, Ran, STRATEGIES, Server, seeded, tests, times,
    wait_until,
};

/// Many small batches, so that a kill hits in the middle; one row in fifty is bad.
pub fn long_input(rows: usize, random: &mut fastrand::Rng) -> Input {
    let fates: Vec<Fate> = (0..rows)
        .map(|_| match random.u8(..) {
            0..5 => Fate::Bad(Kind::any(random)),
            _ => Fate::Good,
        })
        .collect();
    Input::planned(1, &fates, random)
}

/// Another number of rows a batch, of workers, another strategy each time.
fn varied(load: Cmd, random: &mut fastrand::Rng) -> Cmd {
    let (rows, workers) = (random.usize(5..60), random.usize(1..4));
    let strategy = STRATEGIES[random.usize(..STRATEGIES.len())];
    load.flags(&format!(
        "--batch-rows {rows} -j {workers} --strategy {strategy}"
    ))
}

#[test]
fn a_killed_loader_goes_on_whatever_its_new_options_are() {
    let mut random = seeded("kill");
    let database = Database::new();
    let rounds = times(10, 300);
    let mut kills = 0;
    for round in 0..rounds {
        // Every tenth also kills the first load in an empty database, which makes the ledger.
        let database = if round % 10 == 9 {
            Database::new()
        } else {
            database.clone()
        };
        let case = Case::new(&database, long_input(1500, &mut random));
        let mut killed = 0;
        let mut last: Option<Ran> = None;
        for _ in 0..5 {
            let mut running = varied(case.load(), &mut random).spawn();
            if random.bool() {
                // Somewhere in the middle of the batches.
                let wanted = case.spans() + random.i64(1..8);
                wait_until("a few batches more", || {
                    running.has_ended() || case.spans() >= wanted
                });
            } else {
                std::thread::sleep(Duration::from_millis(random.u64(0..250)));
            }
            let ran = running.kill();
            if ran.finished() {
                // It was quicker.
                last = Some(ran);
                break;
            }
            killed += 1;
            case.between("killed", &ran);
        }
        let last = last.unwrap_or_else(|| varied(case.load(), &mut random).run());
        case.survived(&format!("killed {killed} times"), &last);
        kills += killed;
    }
    assert!(kills >= rounds, "killed {kills} times in {rounds} rounds");
}

#[test]
fn an_abort_before_or_after_any_step_loses_nothing() {
    let mut random = seeded("abort");
    let database = Database::new();
    for round in 0..times(1, 10) {
        for step in ["begin", "claim", "write", "rejects", "settle", "commit"] {
            for side in ["before", "after"] {
                let mut fates = vec![Fate::Good; 60];
                for _ in 0..10 {
                    fates[random.usize(..60)] = Fate::Bad(Kind::NoDate);
                }
                fates[0] = Fate::Bad(Kind::Check);
                let case = Case::new(&database, Input::planned(1, &fates, &mut random));
                let strategy = STRATEGIES[random.usize(..STRATEGIES.len())];
                let nth = if round == 0 { 1 } else { random.usize(1..5) };
                let load = case.load_by(strategy).flags("--batch-rows 7");
                let point = format!("{side} {step}:{nth}");
                let first = load.clone().env("PGRUNG_ABORT_AT", &point).run();
                let name = format!("abort {point}, {strategy}");
                if first.signal == Some(6) {
                    case.recover(&name, first, &load);
                } else {
                    // There may be fewer batches with rejects than that.
                    assert!(nth > 1, "{name}: {first}");
                    case.exact(&name, &first);
                }
            }
        }
    }
}

#[test]
fn a_terminated_backend_is_replaced() {
    let mut random = seeded("terminate");
    let database = Database::new();
    for _ in 0..times(10, 200) {
        let case = Case::new(&database, long_input(1200, &mut random));
        case.slow_down();
        let load = varied(case.load(), &mut random);
        let mut running = load.spawn();
        let mut terminated = 0;
        for _ in 0..random.usize(1..4) {
            let wanted = case.spans() + random.i64(1..5);
            wait_until("a few batches more", || {
                running.has_ended() || case.spans() >= wanted
            });
            terminated += database.number(
                "SELECT count(pg_terminate_backend(pid)) FROM (
                     SELECT pid FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'pgrung'
                     ORDER BY random() LIMIT 1) one",
            );
        }
        let ran = running.wait();
        assert!(terminated > 0, "it was quicker: {ran}");
        case.recover(&format!("{terminated} backends terminated"), ran, &load);
    }
}

/// A server that loses what was not synchronous, as much of it as can be.
pub fn forgetful_server() -> Arc<Server> {
    Server::start(&[
        ("wal_writer_delay", "10s"),
        ("wal_writer_flush_after", "100MB"),
    ])
}

/// Crashes the server after `batches` of the load, and starts it again.
pub fn crash_in_mid_load(case: &Case, load: &Cmd, batches: i64) -> Ran {
    let mut running = load.spawn();
    case.in_mid_load(&mut running, batches);
    case.database.server.embedded().restart(true).unwrap();
    running.wait()
}

/// Crashes the server in the middle of loads.
fn crash(durability: &str, unlogged: bool, rounds: usize) {
    let mut random = seeded(&format!("crash, durability {durability}"));
    let server = forgetful_server();
    for _ in 0..rounds {
        let database = Database::on(&server);
        let case = Case::with(&database, long_input(1500, &mut random), unlogged);
        case.slow_down();
        let load = varied(case.load(), &mut random).flags(&format!("--durability {durability}"));
        let ran = crash_in_mid_load(&case, &load, random.i64(1..12));
        let fault = format!("server crash, durability {durability}, unlogged {unlogged}");
        case.recover(&fault, ran, &load);
    }
}

tests! {
    a_crash_of_the_server_is_survived: crash("on", false, times(3, 50));
    a_crash_of_the_server_that_loses_commits_is_noticed_with_durability_off: crash("off", false, times(3, 50));
    a_crash_of_the_server_that_loses_commits_is_noticed_with_durability_end: crash("end", false, times(3, 50));
    a_crash_of_the_server_that_empties_an_unlogged_table_is_noticed: crash("on", true, times(3, 50));
}

/// Without a ledger nothing tells what a crash has taken, so the load does not go on.
#[test]
fn without_a_ledger_a_crash_of_the_server_stops_a_load_that_it_may_have_robbed() {
    let server = forgetful_server();
    // "" is a server that is itself set so.
    for (durability, unlogged) in [("end", false), ("", false), ("on", true)] {
        let database = Database::on(&server);
        if durability.is_empty() {
            let name = database.one("SELECT quote_ident(current_database())");
            database.run(&format!(
                "ALTER DATABASE {name} SET synchronous_commit = off"
            ));
        }
        let flags = match durability {
            "" => String::new(),
            durability => format!("--durability {durability}"),
        };
        let case = Case::with(&database, Input::good(3000), unlogged);
        let load = case.load().flags("--no-ledger -j 1 --batch-rows 10");
        let mut running = load.flags(&flags).spawn();
        wait_until("a few batches", || {
            running.has_ended() || case.rows() >= 100
        });
        running.still_runs();
        server.embedded().restart(true).unwrap();
        let ran = running.wait();
        // Or it was just waiting for the answer to a COMMIT.
        let word = ["without a ledger it is not known", "there is no ledger"];
        assert!(word.iter().any(|word| ran.stderr.contains(word)), "{ran}");
        ran.exits(1);
        assert!(case.rows() < 3000, "{ran}");
    }
}

/// A stopped first run goes on after a second has taken over.
#[test]
fn a_run_that_was_taken_over_commits_nothing_more() {
    let mut random = seeded("zombie");
    let database = Database::new();
    for _ in 0..times(3, 30) {
        let case = Case::new(&database, long_input(2000, &mut random));
        let mut zombie = case
            .load()
            .flags(&format!("--batch-rows 10 -j {}", random.usize(1..4)))
            .spawn();
        let wanted = random.i64(1..20);
        case.in_mid_load(&mut zombie, wanted);
        zombie.signal(Signal::SIGSTOP);
        let ran = varied(case.load(), &mut random).run();
        assert!(ran.finished(), "{ran}");
        let before = case.rows();
        zombie.signal(Signal::SIGCONT);
        zombie.wait().exits(7).says(&["has taken over"]);
        assert_eq!(case.rows(), before);
        case.survived("zombie", &ran);
    }
}

/// As before, but the second run is still at work when the first wakes up.
#[test]
fn two_runs_at_once_load_every_row_once() {
    let mut random = seeded("two runs");
    let database = Database::new();
    for _ in 0..times(3, 30) {
        let case = Case::new(&database, long_input(2000, &mut random));
        let mut first = case.load().flags("--batch-rows 10 -j 2").spawn();
        let wanted = random.i64(1..20);
        case.in_mid_load(&mut first, wanted);
        let second = case.load().flags("--batch-rows 15 -j 2").run();
        let first = first.wait();
        assert!(second.finished(), "{second}");
        if !first.finished() {
            first.exits(7).says(&["has taken over"]);
        }
        case.survived("two runs at once", &second);
    }
}

/// The input in windows-1252, in which all bytes are text, or in Shift_JIS, with backslashes at the
/// end of characters and records that are no text in it either.
fn in_encoding(label: &str, mut input: Input) -> Input {
    let (letters, no_text): ([&str; 3], Option<&[u8]>) = match label {
        "latin1" => (["é", "ßÿ", "»"], None),
        _ => (["表", "漢字", "ソ"], Some(b"\x81(")),
    };
    let of = |text: &str| -> String {
        let text = text.replace('é', letters[0]).replace("漢字", letters[1]);
        text.replace(['»', '«'], letters[2])
    };
    let encoding = encoding_rs::Encoding::for_label(label.as_bytes()).unwrap();
    let is_no_utf8 = |line: &Line| line.fate == Fate::Bad(Kind::BadUtf8);
    (input.lines).retain(|line| no_text.is_some() || !is_no_utf8(line));
    for line in &mut input.lines {
        line.payload = of(&line.payload);
        // What is no UTF-8 makes way for what is no text in the encoding.
        let text = String::from_utf8_lossy(&line.original);
        let parts: Vec<Vec<u8>> = (text.split("\u{fffd}("))
            .map(|part| encoding.encode(&of(part)).0.into_owned())
            .collect();
        line.original = parts.join(no_text.unwrap_or_default());
    }
    input
}

#[test]
fn a_killed_load_of_another_encoding_goes_on_byte_for_byte() {
    let mut random = seeded("kill in an encoding");
    let database = Database::new();
    for _ in 0..times(1, 20) {
        for label in ["latin1", "shift_jis"] {
            let input = in_encoding(label, long_input(800, &mut random));
            let case = Case::new(&database, input);
            case.slow_down();
            let mut killed = 0;
            for batches in [3, 9] {
                let load = varied(case.load().args(["--encoding", label]), &mut random);
                let mut running = load.spawn();
                wait_until("a few batches", || {
                    running.has_ended() || case.spans() >= batches
                });
                let ran = running.kill();
                if !ran.finished() {
                    killed += 1;
                    case.between("killed", &ran);
                }
            }
            assert!(killed > 0, "{label}");
            let last = varied(case.load().args(["--encoding", label]), &mut random).run();
            case.survived(&format!("{label}, killed {killed} times"), &last);
        }
    }
}
