//! What happens to COMMIT on its way: the request lost, the answer lost, the answer late, silence.

use std::time::Duration;

use crate::support::{
    Case, Cmd, Database, Deal, Fate, Input, Kind, Message, Proxy, STRATEGIES, Side, seeded, tests,
    times,
};

/// Past the answer timeout of these loads.
const LATE: Duration = Duration::from_millis(900);

/// Five batches, a bad row in the second.
pub fn input() -> Input {
    let mut fates = vec![Fate::Good; 50];
    fates[13] = Fate::Bad(Kind::Check);
    Input::planned(1, &fates, &mut fastrand::Rng::with_seed(5))
}

pub fn load(case: &Case, strategy: &str) -> Cmd {
    let load = case.load_by(strategy);
    load.flags("-j 1 --batch-rows 10 --answer-timeout 400ms")
}

/// A fault of one COMMIT.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The server never sees the request; the connection ends.
    RequestCut,
    /// The server never sees the request, and the connection seems to live.
    RequestSwallowed,
    /// The server commits; the connection ends before the answer.
    AnswerCut,
    /// The server commits; the answer never comes, the connection seems to live.
    AnswerSwallowed,
    /// The server commits; the answer comes too late.
    AnswerLate,
    /// The request comes to the server when the loader has long given up.
    RequestLate,
    /// Nothing goes through any more, and nobody hangs up.
    BlackholeBefore,
    /// As before, once the server has committed.
    BlackholeAfter,
    /// The loader's end is cut before the request; the server's end stays open.
    Orphan,
}

impl Fault {
    /// Deals so with the COMMIT of batch number `batch` (0-based).
    pub fn rule(self, batch: usize) -> impl FnMut(&Message<'_>) -> Deal + Send + 'static {
        let mut commits = 0;
        self.rule_if(move || {
            commits += 1;
            commits == batch + 1
        })
    }

    /// Deals so with the COMMIT of each batch of which `chosen` is true.
    pub fn rule_if(
        self,
        mut chosen: impl FnMut() -> bool + Send + 'static,
    ) -> impl FnMut(&Message<'_>) -> Deal + Send + 'static {
        // The connection on which the answer is awaited.
        let mut awaited = None;
        move |message| {
            if message.is_batch_commit() {
                if chosen() {
                    match self {
                        Fault::RequestCut => return Deal::CutBefore,
                        Fault::RequestSwallowed => return Deal::Swallow,
                        Fault::RequestLate => return Deal::Delay(LATE),
                        Fault::BlackholeBefore => return Deal::Blackhole,
                        Fault::Orphan => return Deal::Orphan,
                        _ => awaited = Some(message.connection),
                    }
                }
                return Deal::Forward;
            }
            if message.side == Side::Client || awaited != Some(message.connection) {
                return Deal::Forward;
            }
            let last = message.tag == b'Z';
            if last || !matches!(self, Fault::AnswerSwallowed) {
                awaited = None;
            }
            match self {
                Fault::AnswerCut => Deal::CutBefore,
                Fault::AnswerSwallowed => Deal::Swallow,
                Fault::AnswerLate => Deal::Delay(LATE),
                Fault::BlackholeAfter => Deal::Blackhole,
                _ => Deal::Forward,
            }
        }
    }
}

/// A load by way of a proxy with this rule, which must deal with something. The loader must survive
/// that by itself, also while a dead connection seems to live.
#[track_caller]
fn survives_by_itself(
    fault: &str,
    database: &std::sync::Arc<Database>,
    strategy: &str,
    rule: impl FnMut(&Message<'_>) -> Deal + Send + 'static,
) {
    let case = Case::new(database, input());
    let proxy = Proxy::start(database.server.port(), rule);
    let ran = load(&case, strategy).dsn(&proxy.dsn(&database.name)).run();
    let name = format!("{fault}, {strategy}");
    assert!(proxy.dealt(), "{name}: {ran}");
    ran.exits(3);
    drop(proxy);
    case.survived(&name, &ran);
}

/// Tries the fault on COMMITs by chance, with each strategy in turn.
fn survives(fault: Fault) {
    let mut random = seeded(&format!("{fault:?}"));
    let database = Database::new();
    for round in 0..times(5, 50) {
        let batch = random.usize(..5);
        let strategy = STRATEGIES[round % STRATEGIES.len()];
        let name = format!("{fault:?} of batch {batch}");
        survives_by_itself(&name, &database, strategy, fault.rule(batch));
    }
}

tests! {
    a_request_to_commit_that_is_cut_off_is_made_again: survives(Fault::RequestCut);
    a_request_to_commit_that_is_lost_is_made_again: survives(Fault::RequestSwallowed);
    a_request_to_commit_that_comes_late_commits_nothing_twice: survives(Fault::RequestLate);
    an_answer_to_commit_that_is_cut_off_is_found_in_the_ledger: survives(Fault::AnswerCut);
    an_answer_to_commit_that_is_lost_is_found_in_the_ledger: survives(Fault::AnswerSwallowed);
    an_answer_to_commit_that_comes_late_is_found_in_the_ledger: survives(Fault::AnswerLate);
    silence_before_commit_is_survived: survives(Fault::BlackholeBefore);
    silence_after_commit_is_survived: survives(Fault::BlackholeAfter);
    a_transaction_that_the_server_still_holds_open_is_ended: survives(Fault::Orphan);
}

/// Silence at any message of the client, not only at COMMIT: the server holds the transaction and
/// its locks, and nobody hangs up.
#[test]
fn silence_at_any_step_of_a_batch_is_survived() {
    let mut random = seeded("silence");
    let database = Database::new();
    for round in 0..times(5, 50) {
        let strategy = STRATEGIES[round % STRATEGIES.len()];
        let side = [Side::Client, Side::Server][random.usize(..2)];
        let wanted = random.usize(1..60);
        let mut seen = 0;
        let name = format!("silence at message {wanted} of the {side:?} in batches");
        survives_by_itself(&name, &database, strategy, move |message| {
            seen += usize::from(message.side == side && message.in_batch);
            if seen == wanted {
                seen += 1;
                Deal::Blackhole
            } else {
                Deal::Forward
            }
        });
    }
}

/// The server has claimed the batch and nobody hears of it: the claim must not be in the way of
/// the next try.
#[test]
fn silence_at_the_answer_to_the_claim_is_survived() {
    let database = Database::new();
    for strategy in STRATEGIES {
        let mut begun = 0;
        let mut answers = 0;
        let name = "silence after the claim";
        survives_by_itself(name, &database, strategy, move |message| {
            begun += usize::from(message.begins_batch());
            // The answer to BEGIN, then the one to the claim, whose statement is prepared by now.
            answers +=
                usize::from(begun == 3 && message.side == Side::Server && message.tag == b'Z');
            if answers == 2 {
                answers += 1;
                Deal::Blackhole
            } else {
                Deal::Forward
            }
        });
    }
}

/// Without a ledger nobody can tell, and the load says so.
#[test]
fn without_a_ledger_a_lost_answer_to_commit_stops_the_load() {
    let database = Database::new();
    for fault in [Fault::AnswerCut, Fault::AnswerSwallowed, Fault::RequestCut] {
        let case = Case::new(&database, Input::good(50));
        let proxy = Proxy::start(database.server.port(), fault.rule(2));
        let load = load(&case, "copy").arg("--no-ledger");
        let ran = load.dsn(&proxy.dsn(&database.name)).run();
        ran.exits(1).says(&[
            "the answer to COMMIT was lost and there is no ledger",
            "records 21 to 30",
        ]);
        assert_eq!(ran.rows("loaded"), 20, "{ran}");
        assert!([20, 30].contains(&case.rows()), "{ran}");
    }
}

#[test]
fn a_lost_answer_to_a_row_that_is_its_own_commit_stops_the_load_and_doubles_none() {
    let database = Database::new();
    for deal in [Deal::CutBefore, Deal::Blackhole] {
        let case = Case::new(&database, Input::good(20));
        let mut stored = 0;
        let proxy = Proxy::start(database.server.port(), move |message| {
            let is_stored = message.side == Side::Server
                && message.tag == b'C'
                && message.body.starts_with(b"INSERT 0 1");
            stored += usize::from(is_stored);
            match is_stored && stored == 5 {
                true => deal,
                false => Deal::Forward,
            }
        });
        let load = load(&case, "insert").flags("--commit row --no-ledger");
        let ran = load.dsn(&proxy.dsn(&database.name)).run();
        ran.exits(1)
            .says(&["it is not known whether record 5 is stored"]);
        assert_eq!((ran.rows("loaded"), case.rows()), (4, 5), "{deal:?}: {ran}");
    }
}
