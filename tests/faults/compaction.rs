//! The compaction of spans while a load runs, which a long load makes now and then: here it is made all
//! the time, beside four workers, and what dies then must still find its rows in the ledger.

use super::commits::Fault;
use super::kills::long_input;
use crate::support::{Case, Cmd, Database, Proxy, Running, seeded, times, wait_until};

/// Rows of a batch; a span of more is a compacted one.
const BATCH: i64 = 5;

/// A compaction every 20 ms and 10 batches, not every 30 s and 500.
fn load(case: &Case) -> Cmd {
    let load = case.load().flags(&format!("-j 4 --batch-rows {BATCH}"));
    load.env("PGRUNG_COMPACT_EVERY", "20:10")
}

/// Watches the ledger until the load ends or `enough` compactions were seen; how many. Whenever it is
/// looked at, the spans know as many rows as the table holds.
#[track_caller]
fn watch(case: &Case, running: &mut Running, enough: usize) -> usize {
    wait_until("a ledger", || running.has_ended() || case.spans() > 0);
    let (mut compactions, mut largest) = (0, BATCH);
    while compactions < enough && !running.has_ended() {
        // One statement, one snapshot. The compaction that ends an import is none of these.
        let columns = format!(
            "coalesce(max(records) FILTER (WHERE finished_at IS NULL), 0)::bigint,
             coalesce(sum(loaded), 0)::bigint,
             (SELECT count(*) FROM {})",
            case.table
        );
        let found = case.database.query(&case.of_ledger(&columns, "spans"));
        let [records, claimed, stored] = [0, 1, 2].map(|index| found[0].get::<_, i64>(index));
        assert_eq!(claimed, stored, "rows in the ledger, rows");
        compactions += usize::from(records > largest && !running.has_ended());
        largest = largest.max(records);
    }
    compactions
}

#[test]
fn spans_are_compacted_while_the_load_runs() {
    let mut random = seeded("compactions");
    let database = Database::new();
    for _ in 0..times(2, 20) {
        let case = Case::new(&database, long_input(4000, &mut random));
        let mut running = load(&case).spawn();
        let compactions = watch(&case, &mut running, usize::MAX);
        let ran = running.wait();
        assert!(
            compactions >= 3,
            "{compactions} compactions were seen: {ran}"
        );
        case.exact("compactions", &ran);
    }
}

#[test]
fn a_loader_killed_among_merges_goes_on() {
    let mut random = seeded("killed among compactions");
    let database = Database::new();
    for _ in 0..times(3, 50) {
        let case = Case::new(&database, long_input(4000, &mut random));
        for _ in 0..random.usize(1..3) {
            let mut running = load(&case).spawn();
            let wanted = random.usize(1..4);
            let compactions = watch(&case, &mut running, wanted);
            let ran = running.kill();
            assert_eq!(compactions, wanted, "too few compactions were seen: {ran}");
            assert_eq!(ran.signal, Some(9), "{ran}");
            case.between("killed among compactions", &ran);
        }
        case.survived("killed among compactions", &load(&case).run());
    }
}

/// A batch whose answer is lost finds its span, whole or compacted with others by now.
#[test]
fn a_lost_answer_to_commit_is_found_among_compacted_spans() {
    let mut random = seeded("lost among compactions");
    let database = Database::new();
    for fault in [Fault::AnswerCut, Fault::RequestCut] {
        for _ in 0..times(1, 20) {
            let case = Case::new(&database, long_input(3000, &mut random));
            let mut chance = fastrand::Rng::with_seed(random.u64(..));
            let rule = fault.rule_if(move || chance.u8(..40) == 0);
            let proxy = Proxy::start(database.server.port(), rule);
            let load = load(&case).flags("--max-retries 1000");
            let mut running = load.dsn(&proxy.dsn(&database.name)).spawn();
            let compactions = watch(&case, &mut running, usize::MAX);
            let ran = running.wait();
            assert!(proxy.dealt(), "{ran}");
            assert!(compactions > 0, "no compaction was seen: {ran}");
            ran.exits(3);
            drop(proxy);
            case.survived(&format!("{fault:?} among compactions"), &ran);
        }
    }
}

#[test]
fn a_merge_waits_for_the_batches_under_way() {
    let database = Database::new();
    let case = Case::new(&database, crate::support::Input::good(60));
    // What a batch holds until its end.
    let batch = database.session();
    batch.run("BEGIN; SELECT pg_advisory_xact_lock_shared(1885827438, hashtext('n'))");
    let mut running = load(&case).flags("--import-id n").spawn();
    wait_until("it waits", || {
        running.has_ended() || database.waits_for_lock()
    });
    running.still_runs();
    batch.run("COMMIT");
    case.exact("compacted", &running.wait());
}
