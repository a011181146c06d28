//! Every file of fixtures/, loaded in every way: the tables must be equal to each other and to what
//! psql's own \copy leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::{Database, Files, RUNGS, Ran, text};

/// Threads that load fixtures, each in a database of its own.
const THREADS: usize = 2;

/// Rows that close a batch, and workers: any fixture in one batch.
const WHOLE: (&str, &str) = ("1000", "1");

/// Many batches. Each strategy meets each of them with half of the fixtures, each fixture with half
/// of the strategies.
const PARTS: [(&str, &str); 2] = [("1", "2"), ("2", "1")];

/// Fixtures whose rows need each other, so that they load as one batch only.
const ONE_BATCH: [&str; 1] = ["child_before_parent.csv"];

/// Fixtures whose rows the server numbers in the order they come.
const IN_ORDER: [&str; 2] = [
    "identity_always_left_out.csv",
    "identity_by_default_left_out.csv",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The tables of fixtures/README.md.
struct Readme {
    loads: Vec<Load>,
    same_rows_as: BTreeMap<String, String>,
    failures: Vec<Failure>,
}

#[derive(Clone)]
struct Load {
    file: String,
    table: String,
    options: Vec<String>,
    loaded: u64,
    rejected: u64,
    /// Column list and options of psql's \copy.
    psql: Option<(String, String)>,
}

struct Failure {
    file: String,
    table: String,
    options: Vec<String>,
    exit: i32,
}

/// Reads the README: a table is known by its first row.
fn readme() -> Readme {
    let mut readme = Readme {
        loads: Vec::new(),
        same_rows_as: BTreeMap::new(),
        failures: Vec::new(),
    };
    let mut heading = Vec::new();
    for line in fs::read_to_string(folder().join("README.md"))
        .unwrap()
        .lines()
    {
        let Some(row) = cells(line) else {
            heading.clear();
            continue;
        };
        if heading.is_empty() {
            heading = row;
            continue;
        }
        if row[0].starts_with("---") {
            continue;
        }
        let columns: Vec<&str> = heading.iter().map(String::as_str).collect();
        match (columns.as_slice(), row.as_slice()) {
            (
                [
                    "file",
                    "table",
                    "options",
                    "loaded",
                    "rejected",
                    "psql",
                    "shows",
                ],
                [file, table, options, loaded, rejected, psql, _],
            ) => readme.loads.push(Load {
                file: file.clone(),
                table: table.clone(),
                options: flags(options),
                loaded: loaded.parse().unwrap(),
                rejected: rejected.parse().unwrap(),
                psql: (psql != "-").then(|| match psql.strip_prefix("cols=") {
                    Some(rest) => {
                        let end = rest.find(") (").unwrap() + 1;
                        (rest[..end].to_owned(), rest[end + 1..].to_owned())
                    }
                    None => (String::new(), psql.clone()),
                }),
            }),
            (["file", "same rows as"], [file, other]) => {
                readme.same_rows_as.insert(file.clone(), other.clone());
            }
            (["file", "table", "options", "exit", "shows"], [file, table, options, exit, _]) => {
                readme.failures.push(Failure {
                    file: file.clone(),
                    table: table.clone(),
                    options: flags(options),
                    exit: exit.parse().unwrap(),
                });
            }
            _ => panic!("not a row of a known table: {line}"),
        }
    }
    readme
}

/// The cells of a line of a table; `\|` stands for `|`.
fn cells(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    let line = line.replace("\\|", "\u{1}");
    Some(
        line.split('|')
            .map(|cell| cell.trim().replace('\u{1}', "|"))
            .collect(),
    )
}

/// Splits flags as a shell does: quotes of both kinds, no escapes.
fn flags(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    if text == "-" {
        return words;
    }
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in text.chars() {
        match (quote, character) {
            (None, ' ') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == character => quote = None,
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// A database with a schema for each table, made when first needed.
struct Bench {
    database: Arc<Database>,
    tables: BTreeSet<String>,
    files: Files,
}

impl Bench {
    fn new() -> Self {
        Bench {
            database: Database::new(),
            tables: BTreeSet::new(),
            files: Files::new(),
        }
    }

    /// Makes the table, or empties it, and makes it the one that its bare name means.
    fn prepare(&mut self, table: &str) {
        let session = &self.database;
        if self.tables.insert(table.to_owned()) {
            let sql = fs::read_to_string(folder().join(format!("{table}.sql"))).unwrap();
            session.run(&format!(
                "CREATE SCHEMA \"{table}\"; SET search_path = \"{table}\"; {sql}"
            ));
        } else {
            session.run(&format!(
                "SET search_path = \"{table}\"; TRUNCATE \"{table}\" RESTART IDENTITY"
            ));
        }
    }

    /// The rows of the table, each with the partition it is in.
    fn rows(&self, table: &str) -> Vec<String> {
        self.database.lines(&format!(
            "SELECT tableoid::regclass, t::text FROM \"{table}\" AS t ORDER BY 2"
        ))
    }

    fn load(
        &mut self,
        file: &str,
        table: &str,
        options: &[String],
        more: &str,
    ) -> (Ran, Vec<String>) {
        self.prepare(table);
        let search_path = format!("options='-c search_path=\"{table}\"'");
        let socket = text(self.database.server.embedded().socket_dir());
        let ran = self
            .database
            .load(table)
            .current_dir(&folder())
            .arg(file)
            .args([
                "--dsn",
                &format!("{} host={socket} {search_path}", self.database.dsn()),
            ])
            .flags("--progress none")
            .args(options)
            .flags(more)
            .run();
        let rows = self.rows(table);
        (ran, rows)
    }

    /// What psql's \copy leaves.
    fn psql(&mut self, load: &Load) -> Option<Vec<String>> {
        let (columns, options) = load.psql.as_ref()?;
        let Load { file, table, .. } = load;
        self.prepare(table);
        let copy =
            format!("\\copy \"{table}\".\"{table}\" {columns} from '{file}' with {options}\n");
        let script = self.files.write("copy.sql", copy);
        let psql = self.database.psql().current_dir(&folder());
        let ran = psql.args(["-f", &script]).run();
        assert_eq!(ran.code, Some(0), "{file}: {ran}");
        Some(self.rows(table))
    }

    /// What a load of the file must leave, by psql: of itself, or of the file with the same rows.
    fn oracle(&mut self, load: &Load, readme: &Readme) -> Option<Vec<String>> {
        let own = self.psql(load);
        let Some(other) = readme.same_rows_as.get(&load.file) else {
            return own;
        };
        let other = readme.loads.iter().find(|load| load.file == *other);
        let theirs = self
            .psql(other.unwrap_or_else(|| panic!("{}: same rows as an unknown file", load.file)));
        assert!(theirs.is_some(), "{}: psql cannot tell", load.file);
        assert!(own.is_none() || own == theirs, "{}", load.file);
        theirs
    }

    /// Loads one fixture in every way.
    fn check(&mut self, load: &Load, readme: &Readme) {
        let Load {
            file,
            table,
            options,
            ..
        } = load;
        let mut expected = self.oracle(load, readme);
        for (number, strategy) in RUNGS.into_iter().enumerate() {
            // A commit a row does the same whatever the batch.
            let by_row = strategy.contains("row");
            let one_batch = ONE_BATCH.contains(&file.as_str());
            let parts = PARTS[(file.len() + number) % 2];
            for (rows, workers) in [WHOLE, parts] {
                if (by_row || one_batch) && (rows, workers) != WHOLE || one_batch && by_row {
                    continue;
                }
                let in_order = load.rejected > 0 || IN_ORDER.contains(&file.as_str());
                let workers = if in_order { "1" } else { workers };
                let way = format!("{file} {strategy} --batch-rows {rows} -j {workers}");
                let more = format!("{strategy} --batch-rows {rows} -j {workers}");
                let (ran, stored) = self.load(file, table, options, &more);
                let code = if load.rejected > 0 { 3 } else { 0 };
                assert_eq!(ran.code, Some(code), "{way}: {ran}");
                assert_eq!(stored.len() as u64, load.loaded, "{way}: {ran}");
                assert_eq!(ran.rows("loaded"), load.loaded, "{way}: {ran}");
                assert_eq!(ran.rows("rejected"), load.rejected, "{way}: {ran}");
                let read = load.loaded + load.rejected;
                assert_eq!(ran.rows("read"), read, "{way}: {ran}");
                let expected = expected.get_or_insert_with(|| stored.clone());
                assert_eq!(stored, *expected, "{way}");
            }
        }
    }
}

/// Runs `work` on every item, on a few threads, each with a bench of its own; fails at the end, so
/// that all fixtures at fault are told.
fn on_benches<T: Sync>(items: &[T], work: impl Fn(&mut Bench, &T) + Sync) {
    let waiting = Mutex::new(items.iter());
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut bench = Bench::new();
                loop {
                    let next = waiting.lock().unwrap().next();
                    let Some(item) = next else { break };
                    let checked = catch_unwind(AssertUnwindSafe(|| work(&mut bench, item)));
                    failed.fetch_add(usize::from(checked.is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0, "fixtures failed, see above");
}

#[test]
fn every_file_is_in_the_readme_and_every_row_of_the_readme_has_its_file() {
    let readme = readme();
    let in_folder: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(Result::unwrap)
        // Job files have tests of their own.
        .filter(|entry| entry.file_name() != "jobs" && entry.file_name() != "nights")
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name != "README.md" && !name.ends_with(".sql"))
        .collect();
    let loads = readme.loads.iter().map(|load| &load.file);
    let failures = readme.failures.iter().map(|failure| &failure.file);
    let listed: Vec<String> = loads.chain(failures).cloned().collect();
    assert!(listed.len() > 90, "{}", listed.len());
    assert_eq!(BTreeSet::from_iter(listed.clone()), in_folder);
    assert_eq!(listed.len(), in_folder.len(), "a file is listed twice");
    for file in readme.same_rows_as.keys() {
        assert!(listed.contains(file), "{file}");
    }
}

#[test]
fn every_table_of_the_folder_is_loaded_by_a_fixture() {
    let readme = readme();
    let used: BTreeSet<String> = readme
        .loads
        .iter()
        .map(|load| format!("{}.sql", load.table))
        .collect();
    let made: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sql"))
        .collect();
    assert_eq!(used, made);
}

#[test]
fn every_fixture_leaves_the_same_table_whatever_the_strategy_and_the_batch() {
    let readme = readme();
    on_benches(&readme.loads, |bench, load| bench.check(load, &readme));
}

#[test]
fn a_fixture_that_fails_as_a_whole_tells_its_name_and_what_was_loaded() {
    let readme = readme();
    assert!(readme.failures.len() > 9);
    on_benches(&readme.failures, |bench, failure| {
        for strategy in RUNGS {
            let Failure {
                file,
                table,
                options,
                exit,
            } = failure;
            let (ran, stored) = bench.load(file, table, options, strategy);
            assert_eq!(ran.code, Some(*exit), "{file} {strategy}: {ran}");
            assert!(ran.stdout.is_empty() || *exit == 6, "{file}: {ran}");
            if *exit == 2 {
                assert!(stored.is_empty(), "{file} {strategy}: {stored:?}");
            } else {
                ran.says(&[file.as_str()]);
                assert_eq!(ran.committed(), stored.len() as u64, "{file}: {ran}");
            }
        }
    });
}
