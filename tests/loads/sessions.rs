//! How many sessions of the server a load takes.

use crate::support::{Database, Files};

/// One for each worker, and one for all that is asked besides.
#[test]
fn four_workers_take_at_most_five_sessions_at_any_time() {
    let database = Database::with("CREATE TABLE t (id int)");
    database.slow_down("t", 5);
    let files = Files::new();
    let rows: String = (1..=4000).map(|id| format!("{id}\n")).collect();
    let file = files.write("rows.csv", rows);
    let load = database.load_once("t").arg(file);
    let load = load.flags("--no-header -j 4 --batch-rows 10 --progress plain --report-every 50ms");
    let mut running = load.spawn();
    let (mut most, mut looks) = (0, 0);
    while !running.has_ended() {
        most = most.max(database.loaders("backend_type = 'client backend'"));
        looks += 1;
    }
    let ran = running.wait();
    ran.exits(0);
    assert_eq!(database.count("t"), 4000);
    assert!(
        looks > 50 && most >= 4,
        "{looks} looks, {most} sessions: {ran}"
    );
    assert!(most <= 5, "{most} sessions at once: {ran}");
}
