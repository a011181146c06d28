//! The bench proves itself: with a safeguard switched off, the checker must find loss or doubling.

use super::commits::{self, Fault};
use super::ends::load_in_tens;
use super::kills;
use crate::support::{Case, Cmd, Database, Input, Proxy, STRATEGIES, Verdict};

/// Runs the load through the proxy with one safeguard switched off, then without the proxy and
/// with all safeguards until it is done; what the checker says.
fn sabotaged(switch: &str, case: &Case, load: &Cmd, fault: Option<(Fault, usize)>) -> Verdict {
    let mut first = load.clone().env("PGRUNG_SABOTAGE", switch);
    let proxy =
        fault.map(|(fault, batch)| Proxy::start(case.database.server.port(), fault.rule(batch)));
    if let Some(proxy) = &proxy {
        first = first.dsn(&proxy.dsn(&case.database.name));
    }
    let ran = first.run();
    assert!(proxy.is_none_or(|proxy| proxy.dealt()));
    let last = if ran.finished() { ran } else { load.run() };
    let verdict = case.verdict(&last);
    eprintln!("without {switch}: {verdict:?}");
    verdict
}

#[test]
fn without_the_claim_a_lost_answer_doubles_rows() {
    let database = Database::new();
    for fault in [Fault::AnswerCut, Fault::AnswerSwallowed, Fault::AnswerLate] {
        let case = Case::new(&database, commits::input());
        let load = commits::load(&case, "copy");
        let verdict = sabotaged("claim", &case, &load, Some((fault, 2)));
        assert!(verdict.doubled > 0, "{fault:?} was not noticed");
    }
}

/// A trigger that keeps rows out appears in mid-load, when the load has long looked for triggers.
#[test]
fn without_the_count_rows_that_vanish_go_unnoticed() {
    let database = Database::new();
    for strategy in STRATEGIES {
        for switch in ["none", "count"] {
            let case = Case::new(&database, Input::good(900));
            case.slow_down();
            let load = load_in_tens(&case, strategy);
            let mut running = load.clone().env("PGRUNG_SABOTAGE", switch).spawn();
            case.in_mid_load(&mut running, 3);
            database.run(&format!(
                "CREATE OR REPLACE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF NEW.id % 50 = 0 THEN RETURN NULL; END IF; RETURN NEW; END';
                 CREATE TRIGGER keep_out BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION keep_out()",
                case.table
            ));
            let ran = running.wait();
            if switch == "none" {
                ran.exits(1).says(&["stored 9 of 10 rows without an error"]);
                database.run(&format!("DROP TRIGGER keep_out ON {}", case.table));
                case.recover("a trigger in mid-load", ran, &load);
            } else {
                let verdict = case.verdict(&ran);
                eprintln!("without count: {verdict:?}");
                assert!(verdict.lost > 0, "{strategy}: not noticed: {ran}");
            }
        }
    }
}

/// A connection that is used on as it is, broken or out of step: the load does not live through the
/// faults that it must live through. Claim and count still keep the rows right.
#[test]
fn without_the_discard_no_fault_is_survived() {
    let database = Database::new();
    for fault in [Fault::RequestCut, Fault::AnswerCut, Fault::RequestSwallowed] {
        let case = Case::new(&database, Input::good(50));
        let load = commits::load(&case, "copy").flags("--max-retries 3");
        let proxy = Proxy::start(database.server.port(), fault.rule(2));
        let ran = load
            .clone()
            .dsn(&proxy.dsn(&database.name))
            .env("PGRUNG_SABOTAGE", "discard")
            .run();
        assert!(proxy.dealt(), "{ran}");
        drop(proxy);
        let verdict = case.verdict(&ran);
        eprintln!("without discard: {fault:?}: {verdict:?}");
        assert!(
            !verdict.is_clean() && !ran.finished(),
            "{fault:?}: not noticed"
        );
        case.recover("without discard", ran, &load);
    }
}

/// The server loses commits in a crash, and nobody looks at the end.
#[test]
fn without_the_look_at_the_end_a_crash_of_the_server_loses_rows() {
    let server = kills::forgetful_server();
    let database = Database::on(&server);
    let case = Case::new(&database, Input::good(1500));
    let load = load_in_tens(&case, "copy")
        .flags("--durability off")
        .env("PGRUNG_SABOTAGE", "finish");
    let ran = kills::crash_in_mid_load(&case, &load, 10);
    assert!(ran.finished(), "{ran}");
    let verdict = case.verdict(&ran);
    eprintln!("without finish: {verdict:?}");
    assert!(verdict.lost > 0, "not noticed");
}
