//! Rejects loaded again from the ledger: exactly once, whatever dies meanwhile.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::support::{
    Case, Cmd, Database, Deal, Fate, Input, Kind, Proxy, STRATEGIES, Side, Verdict, seeded, times,
    wait_until,
};

/// A load in which `bad` of the rows lack their parents.
fn orphans(case: &Case, id: &str) {
    let ran = case
        .load()
        .args(["--import-id", id, "--batch-rows", "50"])
        .run();
    case.exact("before the replay", &ran);
}

fn input(rows: usize, random: &mut fastrand::Rng) -> Input {
    let fates: Vec<Fate> = (0..rows)
        .map(|_| match random.u8(0..4) {
            0 => Fate::Bad(Kind::NoParent),
            _ => Fate::Good,
        })
        .collect();
    let mut input = Input::planned(1, &fates, random);
    input.lines[0] = Input::planned(1, &[Fate::Bad(Kind::NoParent)], random)
        .lines
        .remove(0);
    input
}

/// All rows are good once the cause is mended; the rejects are marked.
#[track_caller]
fn check(case: &mut Case) -> Verdict {
    for line in &mut case.input.lines {
        line.fate = Fate::Good;
    }
    let mut verdict = Verdict::default();
    case.check_table(&mut verdict);
    case.check_rejects(&mut verdict);
    case.check_spans(&mut verdict);
    verdict
}

fn replay(case: &Case, id: &str, strategy: &str) -> Cmd {
    case.database
        .pgrung("replay")
        .args([id, "--strategy", strategy])
}

fn rejects_left(case: &Case) -> i64 {
    let database = &case.database;
    database.number("SELECT count(*) FROM pgrung.rejects WHERE replayed_at IS NULL")
}

#[test]
fn rejects_are_loaded_once_the_cause_is_mended() {
    let mut random = seeded("replay");
    for strategy in STRATEGIES {
        let database = Database::new();
        let mut case = Case::new(&database, input(120, &mut random));
        orphans(&case, "r");
        let bad = case.input.bad_count();
        // Nothing is mended yet.
        let ran = replay(&case, "r", strategy).run();
        ran.exits(3);
        assert!(
            ran.stdout
                .contains(&format!("0 rejects loaded, {bad} still bad")),
            "{ran}"
        );
        database.run("INSERT INTO parents VALUES (77)");
        let ran = replay(&case, "r", strategy).run();
        ran.exits(0);
        assert!(
            ran.stdout
                .contains(&format!("{bad} rejects loaded, 0 still bad")),
            "{ran}"
        );
        assert!(check(&mut case).is_clean());
        let ran = replay(&case, "r", strategy).run();
        ran.exits(0);
        assert!(
            ran.stdout.contains("0 rejects loaded, 0 still bad"),
            "{ran}"
        );
        // The load itself sees them as loaded now.
        case.exact(
            "load after the replay",
            &case.load().flags("--import-id r").run(),
        );
    }
}

#[test]
fn a_replay_that_is_killed_goes_on() {
    let mut random = seeded("replay killed");
    let mut killed = 0;
    for _ in 0..times(3, 40) {
        let database = Database::new();
        let mut case = Case::new(&database, input(6_000, &mut random));
        orphans(&case, "r");
        database.run("INSERT INTO parents VALUES (77)");
        // Several portions, each of which takes longer than the longest pause below.
        case.slow_down();
        for _ in 0..4 {
            let strategy = STRATEGIES[random.usize(..5)];
            let left = rejects_left(&case);
            let mut running = replay(&case, "r", strategy).spawn();
            if random.bool() {
                // Some of it is committed.
                wait_until("rejects are loaded", || {
                    running.has_ended() || rejects_left(&case) < left
                });
            } else {
                thread::sleep(Duration::from_millis(random.u64(0..100)));
            }
            killed += usize::from(running.kill().signal == Some(9));
        }
        replay(&case, "r", "copy").run().exits(0);
        check(&mut case).survives("replay killed");
    }
    assert!(killed >= times(3, 40), "killed {killed} times only");
}

#[test]
fn a_replay_whose_commit_is_lost_goes_on() {
    let mut random = seeded("replay cut");
    for round in 0..times(4, 40) {
        let database = Database::new();
        let mut case = Case::new(&database, input(100, &mut random));
        orphans(&case, "r");
        database.run("INSERT INTO parents VALUES (77)");
        let side = if round % 2 == 0 {
            Side::Client
        } else {
            Side::Server
        };
        let mut awaited = false;
        let proxy = Proxy::start(database.server.port(), move |message| {
            awaited |= message.is_batch_commit();
            if awaited && message.side == side {
                awaited = false;
                return Deal::CutBefore;
            }
            Deal::Forward
        });
        let ran = replay(&case, "r", "copy")
            .dsn(&proxy.dsn(&database.name))
            .run();
        assert!(proxy.dealt(), "{ran}");
        drop(proxy);
        replay(&case, "r", "copy").run().exits(0);
        check(&mut case).survives(&format!("replay, COMMIT lost by the {side:?}"));
    }
}

#[test]
fn two_replays_at_once_load_every_reject_once() {
    let mut random = seeded("two replays");
    for _ in 0..times(2, 20) {
        let database = Database::new();
        let mut case = Case::new(&database, input(3000, &mut random));
        orphans(&case, "r");
        database.run("INSERT INTO parents VALUES (77)");
        // Both have begun when the first row is loaded.
        let lock = database.lock(&case.table);
        let first = replay(&case, "r", "insert").spawn();
        let second = replay(&case, "r", "copy").spawn();
        wait_until("both are at it", || {
            database.loaders("wait_event_type = 'Lock'") >= 2
        });
        drop(lock);
        first.wait().exits(0);
        second.wait().exits(0);
        check(&mut case).survives("two replays");
    }
}

/// A trigger that keeps a row out must not make its reject vanish.
#[test]
fn a_reject_that_a_trigger_keeps_out_stays_a_reject() {
    let mut random = seeded("replay and trigger");
    let database = Database::new();
    let case = Case::new(&database, input(60, &mut random));
    orphans(&case, "r");
    database.run(&format!(
        "INSERT INTO parents VALUES (77);
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER nothing BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION nothing()",
        case.table
    ));
    let ran = replay(&case, "r", "copy").run();
    ran.exits(1).says(&["keeps the others out"]);
    let verdict = case.stored();
    assert!(verdict.is_clean(), "{verdict:#?}\n{ran}");
}

/// The exported file can be loaded as it is.
#[test]
fn exported_rejects_are_the_original_bytes() {
    let mut random = seeded("export");
    let database = Database::new();
    let case = Case::new(&database, input(200, &mut random));
    let file = case.files.path("rejects.csv");
    let ran = case
        .load()
        .args(["--batch-rows", "30", "--rejects", file.to_str().unwrap()])
        .run();
    case.exact("export", &ran);
    let found = fs::read(&file).unwrap();
    let header = b"\"id\",\"payload\",\"n\",\"d\",\"s\",\"p\"\n";
    let found = found.strip_prefix(header).expect("a header");
    assert_eq!(found.escape_ascii().to_string(), case.input.bad_bytes());
    database.run("INSERT INTO parents VALUES (77)");
    case.load_of(&file).run().exits(0);
    assert_eq!(case.rows(), 200);
}

#[test]
fn rejects_are_not_loaded_into_another_table_that_has_got_the_name() {
    let mut random = seeded("replay elsewhere");
    for (sql, exit) in [
        ("ALTER TABLE {t} RENAME TO {t}_old", 0),
        ("ALTER TABLE {t} RENAME TO {t}_old; DROP TABLE {t}_old", 6),
    ] {
        let database = Database::new();
        let case = Case::new(&database, input(60, &mut random));
        orphans(&case, "r");
        let table = &case.table;
        database.run(&format!(
            "INSERT INTO parents VALUES (77); CREATE TABLE other (LIKE {table} INCLUDING ALL);
             {}; ALTER TABLE other RENAME TO {table}",
            sql.replace("{t}", table)
        ));
        let left = rejects_left(&case);
        let ran = replay(&case, "r", "copy").run();
        ran.exits(exit);
        assert_eq!(case.rows(), 0, "{ran}");
        match exit {
            // They go where the rows went.
            0 => assert_eq!(database.count(&format!("{table}_old")), 60, "{ran}"),
            _ => {
                ran.says(&["has got its name from another one"]);
                assert_eq!(rejects_left(&case), left, "{ran}");
            }
        }
    }
}

/// What is loaded again is counted in a span, which may be compacted with others just then.
#[test]
fn a_replay_waits_for_a_compaction_of_the_spans_that_it_counts_in() {
    let mut random = seeded("replay and compaction");
    let database = Database::new();
    let mut case = Case::new(&database, input(60, &mut random));
    orphans(&case, "r");
    database.run("INSERT INTO parents VALUES (77)");
    let compaction = database.session();
    compaction.run(
        "BEGIN; SELECT pg_advisory_xact_lock(1885827438, hashtext('r'));
         CREATE TEMP TABLE compacted ON COMMIT DROP AS SELECT * FROM pgrung.spans;
         DELETE FROM pgrung.spans; INSERT INTO pgrung.spans SELECT * FROM compacted",
    );
    let running = replay(&case, "r", "copy").spawn();
    wait_until("it waits", || database.waits_for_lock());
    compaction.run("COMMIT");
    running.wait().exits(0);
    check(&mut case).survives("replay and compaction");
}
