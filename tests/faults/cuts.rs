//! The connection is cut before, inside and after every message of a load of three batches.

use std::sync::{Arc, Mutex};

use crate::support::{
    Case, Cmd, Database, Deal, Fate, Input, Kind, Message, Proxy, STRATEGIES, Side, seeded, tests,
    times, torture,
};

/// A message of a load without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    side: Side,
    number: usize,
    tag: u8,
    /// Whether a COMMIT is near: these points are tried always.
    near_commit: bool,
    /// Whether the message before it, of the same side, is of the same kind: rows of one answer.
    repeats: bool,
}

/// Twelve rows, two of them bad, in three batches.
fn input() -> Input {
    let mut fates = vec![Fate::Good; 12];
    fates[5] = Fate::Bad(Kind::NoNumber);
    fates[8] = Fate::Bad(Kind::TooFewFields);
    Input::planned(1, &fates, &mut fastrand::Rng::with_seed(3))
}

fn load(case: &Case, strategy: &str) -> Cmd {
    case.load_by(strategy)
        .flags("-j 1 --batch-rows 4 --answer-timeout 20s")
}

/// The messages of a load without a fault.
fn points(case: &Case, strategy: &str) -> Vec<Point> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let mut after_commit = false;
    let mut last = [0; 2];
    let proxy = Proxy::start(case.database.server.port(), move |message| {
        // From the request COMMIT to the end of the answer.
        after_commit |= message.is_commit();
        log.lock().unwrap().push(Point {
            side: message.side,
            number: message.number,
            tag: message.tag,
            near_commit: after_commit,
            repeats: last[message.side as usize] == message.tag,
        });
        last[message.side as usize] = message.tag;
        after_commit &= !(message.side == Side::Server && message.tag == b'Z');
        Deal::Forward
    });
    let ran = load(case, strategy)
        .dsn(&proxy.dsn(&case.database.name))
        .run();
    case.exact("no fault", &ran);
    drop(proxy);
    std::mem::take(&mut seen.lock().unwrap())
}

/// Cuts at every `step`th point, and at all of those around a COMMIT. No multiple of three: each
/// message has three points, and all three kinds are to have their turn.
fn cut_all(database: &Arc<Database>, strategy: &str, step: usize, fresh: bool) {
    let first = Case::new(database, input());
    let points = points(&first, strategy);
    let mut turn = seeded(&format!("cuts, {strategy}")).usize(..step);
    let (mut tried, mut missed) = (0, 0);
    for point in &points {
        for deal in [Deal::CutBefore, Deal::CutInside, Deal::CutAfter] {
            turn += usize::from(!point.repeats);
            let its_turn = turn.is_multiple_of(step) && (torture() || !point.repeats);
            if !point.near_commit && !its_turn {
                continue;
            }
            if fresh {
                database.run("DROP SCHEMA IF EXISTS pgrung CASCADE");
            }
            let case = Case::new(database, input());
            let Point { side, number, .. } = *point;
            let at = move |message: &Message<'_>| {
                if message.side == side && message.number == number {
                    deal
                } else {
                    Deal::Forward
                }
            };
            let proxy = Proxy::start(database.server.port(), at);
            let ran = load(&case, strategy).dsn(&proxy.dsn(&database.name)).run();
            let fault = format!(
                "{strategy}: {deal:?} message {number} ({}) of the {side:?}",
                char::from(point.tag)
            );
            let reached = proxy.dealt();
            drop(proxy);
            if reached {
                case.recover(&fault, ran, &load(&case, strategy));
                tried += 1;
            } else {
                // Farewells of connections may come after the loader's end, or not at all.
                assert!(case.verdict(&ran).is_clean(), "{fault}: {ran}");
                missed += 1;
            }
        }
    }
    eprintln!("{strategy}: {tried} cuts at {} messages", points.len());
    assert!(missed * 20 <= tried, "{missed} points were not reached");
}

fn cut_everywhere(strategy: &str) {
    assert!(STRATEGIES.contains(&strategy));
    let database = Database::new();
    // The first load makes the ledger; it is not one of the points.
    let first = Case::new(&database, input());
    first.exact("no fault", &load(&first, strategy).run());
    cut_all(&database, strategy, times(20, 1), false);
}

tests! {
    copy_survives_a_cut_anywhere: cut_everywhere("copy");
    insert_survives_a_cut_anywhere: cut_everywhere("insert");
    pipeline_survives_a_cut_anywhere: cut_everywhere("pipeline");
    multi_insert_survives_a_cut_anywhere: cut_everywhere("multi-insert");
    unnest_survives_a_cut_anywhere: cut_everywhere("unnest");
}

/// The first load of all also makes the ledger.
#[test]
fn the_ledger_is_made_whole_whatever_is_cut() {
    let database = Database::new();
    let step = if torture() { 2 } else { 64 };
    cut_all(&database, "copy", step, true);
}
