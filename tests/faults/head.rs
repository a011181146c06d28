//! The head of a load: if its first rows are all refused alike, the table or the mapping is wrong,
//! and the load leaves nothing, whatever its batches, workers and strategy.

use std::sync::Arc;

use crate::support::{Case, Database, Fate, Files, Input, Kind, RUNGS, STRATEGIES, seeded};

const BAD: Fate = Fate::Bad(Kind::NoNumber);

/// Batches and workers; the first is what a user gets.
const SHAPES: [&str; 6] = [
    "",
    "-j 1 --batch-rows 7",
    "-j 4 --batch-rows 7",
    "-j 4 --batch-rows 100",
    "-j 2 --batch-rows 130",
    "--commit load -j 1 --batch-rows 7",
];

fn case(database: &Arc<Database>, fates: &[Fate]) -> Case {
    Case::new(database, Input::planned(1, fates, &mut seeded("head")))
}

/// Rows, rejects and spans that a load has left.
fn left(case: &Case) -> [i64; 3] {
    let of_ledger = |table| case.database.number(&case.of_ledger("count(*)", table));
    [case.rows(), of_ledger("rejects"), of_ledger("spans")]
}

#[test]
fn a_hundred_bad_rows_at_the_head_stop_the_load_and_leave_nothing_whatever_its_shape() {
    let database = Database::new();
    for kind in [Kind::NoNumber, Kind::NoParent, Kind::TooFewFields] {
        let mut fates = vec![Fate::Bad(kind); 100];
        fates.extend([Fate::Good; 400]);
        for (turn, shape) in SHAPES.iter().enumerate() {
            let case = case(&database, &fates);
            let strategy = STRATEGIES[turn % STRATEGIES.len()];
            let ran = case.load_by(strategy).flags(shape).run();
            ran.exits(1)
                .says(&["the first 100 rows are all refused", "--reject-limit"]);
            assert_eq!(left(&case), [0, 0, 0], "{kind:?} {strategy} {shape}: {ran}");
            assert_eq!((ran.rows("rejected"), ran.rows("loaded")), (0, 0), "{ran}");
            assert_eq!(ran.summary()["reject_reasons"].as_array().unwrap().len(), 0);
        }
    }
}

#[test]
fn a_limit_of_the_users_own_takes_the_place_of_the_head() {
    let database = Database::new();
    let mut fates = vec![BAD; 100];
    fates.extend([Fate::Good; 60]);
    let case = case(&database, &fates);
    case.load().run().exits(1);
    let ran = case.load().flags("--reject-limit 100").run();
    case.exact("after a stop", &ran);
}

#[test]
fn fewer_rows_or_one_that_is_not_alike_are_put_aside() {
    let database = Database::new();
    for odd in [Fate::Good, Fate::Bad(Kind::Null)] {
        for (rows, at) in [(99, 99), (300, 0), (300, 50), (300, 99)] {
            for shape in SHAPES {
                let mut fates = vec![BAD; rows];
                if let Some(fate) = fates.get_mut(at) {
                    *fate = odd;
                }
                let case = case(&database, &fates);
                let ran = case.load().flags(shape).run();
                case.exact(&format!("{odd:?} at {at} of {rows} {shape}"), &ran);
            }
        }
    }
}

#[test]
fn without_a_ledger_the_file_of_rejects_is_empty_again() {
    for shape in SHAPES.into_iter().chain(RUNGS) {
        let database = Database::with("CREATE TABLE t (id int)");
        let files = Files::new();
        let good: String = (0..300).map(|id| format!("{id}\n")).collect();
        let file = files.write("f.csv", format!("id\n{}{good}", "x\n".repeat(100)));
        let load = database.load_once("t").arg(file).flags(shape);
        let load = load
            .flags("--no-ledger --rejects")
            .arg(files.path("bad.csv"));
        load.run()
            .exits(1)
            .says(&["the first 100 rows are all refused"]);
        assert_eq!(database.count("t"), 0, "{shape}");
        for name in ["bad.csv", "bad.csv.reasons.ndjson"] {
            let text = std::fs::read_to_string(files.path(name)).unwrap();
            assert_eq!(text, "", "{shape}: {name}");
        }
        load.flags("--reject-limit 100").run().exits(3);
        assert_eq!(database.count("t"), 300, "{shape}");
    }
}

#[test]
fn the_head_is_that_of_the_first_file_however_many_are_read_at_once() {
    for (first, exit, rows) in [("x\n".repeat(100), 1, 0), ("x\n".repeat(99), 3, 2000)] {
        for shape in SHAPES {
            let database = Database::with("CREATE TABLE t (id int)");
            let files = Files::new();
            let load = database.load_once("t").flags(shape);
            let good: String = (0..1000).map(|id| format!("{id}\n")).collect();
            let load = load.arg(files.write("1.csv", format!("id\n{first}")));
            let load = load.arg(files.write("2.csv", format!("id\n{good}")));
            let load = load.arg(files.write("3.csv", format!("id\n0{good}")));
            load.run().exits(exit);
            assert_eq!(database.count("t"), rows, "{shape}");
        }
    }
}

#[test]
fn an_endless_source_of_bad_rows_stops_the_load_in_the_middle() {
    let database = Database::with("CREATE TABLE t (id int)");
    let mut load = database
        .load_once("t")
        .flags("- --max-wait 10ms -j 2")
        .open_with("id\n");
    for _ in 0..10 {
        load.send("x\n".repeat(11));
    }
    // Its end is not the end of the source.
    let ran = load.wait();
    ran.exits(1).says(&["the first 100 rows are all refused"]);
    assert_eq!(database.number("SELECT count(*) FROM pgrung.rejects"), 0);
}
