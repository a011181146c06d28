//! The bench proves itself: with a safeguard switched off, the checker must find loss or doubling.

use crate::commits::{self, Fault};
use crate::support::{Case, Database, Fate, Input, Kind, Load, Proxy, Verdict};

/// Runs the load through the proxy with one safeguard switched off, then without the proxy and
/// with all safeguards until it is done; what the checker says.
fn sabotaged(switch: &str, case: &Case, load: &Load, fault: Option<(Fault, usize)>) -> Verdict {
    let mut first = load.clone().env("PGRUNG_SABOTAGE", switch);
    let proxy = fault.map(|(fault, batch)| {
        Proxy::start(case.database.server.port(), fault.rule(batch))
    });
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

#[test]
fn without_the_count_rows_that_vanish_go_unnoticed() {
    let database = Database::new();
    for strategy in crate::support::STRATEGIES {
        let case = Case::new(&database, Input::good(60));
        crate::ends::partition_with_a_trigger(&case);
        let load = crate::ends::load_in_tens(&case, strategy);
        let honest = load.run();
        let verdict = sabotaged("count", &case, &load, None);
        assert!(verdict.lost > 0, "{strategy}: {verdict:?}");
        let _ = honest;
    }
}

#[test]
fn without_the_discard_a_connection_out_of_step_is_noticed() {
    let database = Database::new();
    let mut fates = vec![Fate::Good; 50];
    fates[13] = Fate::Bad(Kind::Check);
    let case = Case::new(&database, Input::planned(1, &fates, &mut fastrand::Rng::with_seed(1)));
    let load = commits::load(&case, "copy");
    let verdict = sabotaged("discard", &case, &load, Some((Fault::AnswerLate, 2)));
    assert!(!verdict.is_clean(), "not noticed");
}
