//! What an import remembers, and what it refuses.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::commits;
use super::kills::long_input;
use crate::support::input::{HEADER, table_sql};
use crate::support::{
    Case, Cmd, Database, Deal, Fate, Input, Proxy, Ran, Side, gzip, seeded, times,
};

/// A load that dies when two of its batches are committed.
fn interrupt(case: &Case, load: &Cmd) -> Ran {
    let ran = load.clone().env("PGRUNG_ABORT_AT", "after commit:2").run();
    ran.aborted();
    assert!(case.rows() > 0);
    ran
}

fn in_tens(case: &Case) -> Cmd {
    case.load().flags("-j 1 --batch-rows 10")
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_file_that_changed_is_refused() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(50));
    interrupt(&case, &in_tens(&case));
    let rows = case.rows();
    let mut bytes = case.input.bytes();
    let loaded = HEADER.len() + 2;
    bytes[loaded] ^= 1;
    fs::write(&case.file, &bytes).unwrap();
    let ran = in_tens(&case).run();
    ran.exits(6).says(&["records 1 to 10 ", "--restart"]);
    assert_eq!(case.rows(), rows);
    fs::write(&case.file, case.input.bytes()).unwrap();
    case.survived("changed file", &in_tens(&case).run());
}

#[test]
fn another_table_and_other_reading_options_are_refused() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(50));
    let named = in_tens(&case).flags("--import-id mine");
    interrupt(&case, &named);
    database.run(&table_sql("elsewhere", false));
    let other = database.load_once("elsewhere").arg(&case.file);
    let ran = other.flags("--import-id mine").run();
    ran.exits(6)
        .says(&["it loads", "not \"public\".\"elsewhere\""]);
    assert_eq!(database.number("SELECT count(*) FROM elsewhere"), 0);
    for (options, code, words) in [
        ("--null x", 6, "null was"),
        ("--quote none", 6, "quote was"),
        ("--delimiter ;", 2, "holds another delimiter"),
    ] {
        let ran = named.clone().flags(options).run();
        ran.exits(code).says(&[words]);
    }
    let columns = named.clone().flags("--columns id,payload,n,d,p,s").run();
    columns.exits(6).says(&["its columns are"]);
    case.survived("other options", &named.run());
}

#[test]
fn a_table_that_was_emptied_or_made_anew_is_refused_to_an_interrupted_import() {
    let database = Database::new();
    for sql in [
        "TRUNCATE {t}",
        "DELETE FROM {t}",
        "DROP TABLE {t}; CREATE TABLE {t} (LIKE copy_of_{t} INCLUDING ALL)",
    ] {
        let case = Case::new(&database, Input::good(50));
        database.run(&format!(
            "CREATE TABLE copy_of_{0} (LIKE {0} INCLUDING ALL)",
            case.table
        ));
        interrupt(&case, &in_tens(&case));
        database.run(&sql.replace("{t}", &case.table));
        let load = in_tens(&case);
        load.run().exits(6).says(&["--restart"]);
        assert_eq!(case.rows(), 0, "{sql}");
        let ran = in_tens(&case).flags("--restart").run();
        case.exact(sql, &ran);
        // A finished one has made room for others, unless its rows may have been taken along.
        database.run(&sql.replace("{t}", &case.table));
        case.exact("emptied since", &load.run());
        if sql.contains("DROP") {
            database.run(&sql.replace("{t}", &case.table));
            database.run(&format!("INSERT INTO {} (id, n) VALUES (1, 1)", case.table));
            load.run().exits(6).says(&["made anew"]);
        }
    }
}

/// Several workers leave gaps when they die, and nothing says that the next run cuts its batches
/// where they were cut before.
#[test]
fn a_gap_is_filled_and_nothing_behind_it_is_loaded_again() {
    let database = Database::new();
    for batch_rows in ["1", "3", "10", "1000"] {
        let case = Case::new(&database, Input::good(50));
        let ran = in_tens(&case)
            .env("PGRUNG_ABORT_AT", "after commit:5")
            .run();
        ran.aborted();
        database.run(&format!(
            "DELETE FROM {0} WHERE id BETWEEN 11 AND 20 OR id BETWEEN 31 AND 40;
             DELETE FROM pgrung.spans p USING pgrung.imports i
             WHERE i.import_id = p.import_id AND target LIKE '%\"{0}\"' AND first_record IN (11, 31)",
            case.table
        ));
        let ran = case
            .load()
            .flags(&format!("--batch-rows {batch_rows}"))
            .run();
        assert_eq!(ran.rows("loaded"), 20, "{ran}");
        case.survived("gaps", &ran);
    }
}

#[test]
fn restart_forgets_and_loads_again() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(50));
    interrupt(&case, &in_tens(&case));
    let ran = in_tens(&case).flags("--restart").run();
    ran.exits(0).says(&["is forgotten"]);
    assert_eq!(ran.rows("loaded"), 50);
    // Only --restart may do this: the rows of before are there twice.
    assert_eq!(case.rows(), 70);
}

#[test]
fn a_file_loaded_twice_is_loaded_once_under_any_name() {
    let mut random = seeded("twice");
    let database = Database::new();
    let case = Case::new(&database, long_input(200, &mut random));
    let first = case.load().run();
    case.exact("once", &first);
    let again = case.load().flags("--strategy unnest --batch-rows 7").run();
    case.exact("twice", &again);
    let copy = case.files.path("another name.csv");
    fs::copy(&case.file, &copy).unwrap();
    case.exact("another name", &case.load_of(&copy).run());
    let both = case
        .load_of(&copy)
        .args([case.file.to_str().unwrap()])
        .run();
    both.says(&["has the same content"]);
    case.exact("both names", &both);
}

#[test]
fn a_file_that_has_grown_goes_on() {
    let mut random = seeded("grown");
    let database = Database::new();
    for _ in 0..times(2, 20) {
        let full = long_input(120, &mut random);
        let mut case = Case::new(&database, full.clone());
        case.input.lines.truncate(random.usize(40..110));
        fs::write(&case.file, case.input.bytes()).unwrap();
        interrupt(&case, &in_tens(&case));
        append(&case.file, &full.bytes()[case.input.bytes().len()..]);
        case.input = full;
        let ran = in_tens(&case).run();
        ran.says(&["goes on"]);
        case.survived("grown file", &ran);
    }
}

/// The last record had no line end yet, and was taken as it was.
#[test]
fn a_file_that_has_grown_within_its_last_record_is_refused() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(40));
    let bytes = case.input.bytes();
    let short = bytes.len() - 2;
    fs::write(&case.file, &bytes[..short]).unwrap();
    let load = in_tens(&case).env("PGRUNG_ABORT_AT", "after commit:4");
    load.run().aborted();
    let rows = case.rows();
    append(&case.file, &bytes[short..]);
    let more = Input::planned(41, &[Fate::Good; 5], &mut fastrand::Rng::with_seed(1));
    append(&case.file, &more.bytes()[HEADER.len()..]);
    let ran = in_tens(&case).run();
    ran.exits(6)
        .says(&["now their last record goes on", "--restart"]);
    assert_eq!(case.rows(), rows);
}

#[test]
fn a_truncated_gzip_loads_what_is_whole_and_the_full_file_goes_on() {
    let mut random = seeded("gzip");
    let database = Database::new();
    for _ in 0..times(3, 30) {
        let case = Case::new(&database, long_input(600, &mut random));
        let packed = gzip(&case.input.bytes());
        let file = case.files.path("input.csv.gz");
        let cut = random.usize(packed.len() / 3..packed.len());
        fs::write(&file, &packed[..cut]).unwrap();
        let load = case.load_of(&file).flags("--batch-rows 50");
        let ran = load.run();
        ran.exits(6).says(&["the gzip data ends too early"]);
        case.between("truncated gzip", &ran);
        assert!(case.rows() > 0, "{ran}");
        // The same again changes nothing.
        let rows = case.rows();
        load.run().exits(6);
        assert_eq!(case.rows(), rows);
        fs::write(&file, &packed).unwrap();
        // Nothing but the end mark may have been missing.
        case.survived("truncated gzip", &load.run());
    }
}

#[test]
fn stdin_sent_again_from_its_start_is_loaded_once() {
    let mut random = seeded("stdin");
    let database = Database::new();
    for round in 0..times(3, 30) {
        let case = Case::new(&database, long_input(600, &mut random));
        case.slow_down();
        let load = case
            .load_stdin()
            .args([
                "--import-id",
                &format!("pipe {round}"),
                "--batch-rows",
                "20",
            ])
            .stdin(&case.file);
        let mut running = load.spawn();
        case.in_mid_load(&mut running, random.i64(1..10));
        let ran = running.kill();
        case.recover("stdin sent again", ran, &load);
        case.exact("stdin sent a third time", &load.run());
    }
}

#[test]
fn other_bytes_on_stdin_are_refused() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(50));
    let load = case
        .load_stdin()
        .flags("--import-id pipe -j 1 --batch-rows 10")
        .stdin(&case.file);
    interrupt(&case, &load);
    let other = case.files.path("other.csv");
    let mut bytes = case.input.bytes();
    bytes[HEADER.len()] = b'9';
    fs::write(&other, &bytes).unwrap();
    let rows = case.rows();
    load.clone().stdin(&other).run().exits(6);
    assert_eq!(case.rows(), rows);
    case.survived("other bytes on stdin", &load.run());
}

/// A finished import takes no other rows under its name without a word: exit 0 would say that they
/// are loaded.
#[test]
fn other_rows_on_stdin_under_the_name_of_a_finished_import_are_not_called_loaded() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(50));
    let load = case
        .load_stdin()
        .flags("--import-id pipe --batch-rows 10")
        .stdin(&case.file);
    load.run().exits(0);
    let other = case.files.path("other.csv");
    let more = Input::planned(51, &[Fate::Good; 20], &mut fastrand::Rng::with_seed(2));
    fs::write(&other, more.bytes()).unwrap();
    let ran = load.clone().stdin(&other).run();
    ran.exits(6);
    case.exact("the same stdin again", &load.run());
}

#[test]
fn stdin_that_ends_within_a_record_is_no_success() {
    let database = Database::new();
    let bytes = Input::good(60).bytes();
    let mut random = seeded("stdin ends");
    for _ in 0..times(5, 50) {
        let case = Case::new(&database, Input::good(60));
        // Within quotes: nothing else tells that a record is not whole.
        let quote = bytes
            .iter()
            .enumerate()
            .skip(random.usize(HEADER.len()..bytes.len() - 60))
            .find(|(at, byte)| **byte == b'"' && bytes[at - 1] == b',')
            .map(|(at, _)| at)
            .unwrap();
        let part = case.files.path("part.csv");
        fs::write(&part, &bytes[..quote + 3]).unwrap();
        let ran = case.load_stdin().flags("--batch-rows 7").stdin(&part).run();
        ran.exits(6);
        case.between("stdin ends", &ran);
    }
}

/// Cuts while the import is opened or closed leave it whole.
#[test]
fn a_lost_answer_while_the_import_is_opened_or_closed_is_no_harm() {
    let database = Database::new();
    // COMMITs outside batches of a load without a fault; the first load of all makes the ledger.
    let mut commits = 0;
    for _ in 0..2 {
        let case = Case::new(&database, commits::input());
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let proxy = Proxy::start(database.server.port(), move |message| {
            let outside = message.is_commit() && !message.is_batch_commit();
            count.fetch_add(usize::from(outside), Relaxed);
            Deal::Forward
        });
        let load = commits::load(&case, "copy");
        case.exact("no fault", &load.dsn(&proxy.dsn(&database.name)).run());
        commits = seen.load(Relaxed);
    }
    assert!(
        commits >= 2,
        "{commits} COMMITs to open and close an import"
    );
    for wanted in 1..=commits {
        for side in [Side::Client, Side::Server] {
            let case = Case::new(&database, commits::input());
            let mut outside = 0;
            let mut awaited = None;
            let proxy = Proxy::start(database.server.port(), move |message| {
                if message.is_commit() && !message.is_batch_commit() {
                    outside += 1;
                    if outside == wanted {
                        awaited = Some(message.connection);
                        if side == Side::Client {
                            return Deal::CutBefore;
                        }
                    }
                } else if message.side == Side::Server && awaited == Some(message.connection) {
                    return Deal::CutBefore;
                }
                Deal::Forward
            });
            let load = commits::load(&case, "copy");
            let ran = load.clone().dsn(&proxy.dsn(&database.name)).run();
            let name = format!("COMMIT {wanted} outside batches, lost by the {side:?}");
            assert!(proxy.dealt(), "{name}: {ran}");
            drop(proxy);
            case.recover(&name, ran, &load);
        }
    }
}
