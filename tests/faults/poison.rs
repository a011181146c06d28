//! Bad rows of every kind, anywhere among good ones: the rejected set is the planted set.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::support::{
    Case, Database, Fate, Files, Input, Kind, RUNGS, STRATEGIES, Server, seeded, times, torture,
};

/// A load of `fates` in batches of `batch_rows`.
fn load(database: &Arc<Database>, name: &str, strategy: &str, batch_rows: usize, input: Input) {
    let case = Case::new(database, input);
    let rows = batch_rows.to_string();
    let ran = case
        .load_by(strategy)
        .flags(&format!("--batch-rows {rows} -j 2"))
        .run();
    case.exact(&format!("{name}, {strategy}, batches of {rows}"), &ran);
}

/// Where the bad rows stand.
fn plans(kind: Kind, random: &mut fastrand::Rng) -> Vec<(&'static str, Vec<Fate>)> {
    let rows = 40;
    let good = vec![Fate::Good; rows];
    let with = |places: &[usize]| {
        let mut fates = good.clone();
        for &place in places {
            fates[place] = Fate::Bad(kind);
        }
        fates
    };
    let middle = random.usize(1..rows - 2);
    vec![
        ("first", with(&[0])),
        ("last", with(&[rows - 1])),
        ("adjacent", with(&[middle, middle + 1])),
        ("all", vec![Fate::Bad(kind); rows]),
    ]
}

#[test]
fn each_kind_of_bad_row_is_put_aside_wherever_it_stands() {
    let mut random = seeded("kinds");
    let database = Database::new();
    let mut turn = 0;
    for kind in Kind::all() {
        for (place, fates) in plans(kind, &mut random) {
            // Under make test the strategies take turns.
            let strategies = if torture() {
                &STRATEGIES[..]
            } else {
                turn += 1;
                &STRATEGIES[turn % STRATEGIES.len()..][..1]
            };
            for strategy in strategies {
                let input = Input::planned(1, &fates, &mut random);
                let batch_rows = random.usize(1..60);
                load(
                    &database,
                    &format!("{kind:?} {place}"),
                    strategy,
                    batch_rows,
                    input,
                );
            }
        }
    }
}

fn mix(random: &mut fastrand::Rng, rows: usize) -> Input {
    let share = random.u8(..);
    let fates: Vec<Fate> = (0..rows)
        .map(|_| {
            if random.u8(..) < share {
                Fate::Bad(Kind::any(random))
            } else {
                Fate::Good
            }
        })
        .collect();
    Input::planned(1, &fates, random)
}

#[test]
fn a_mix_of_all_kinds_is_put_aside() {
    let mut random = seeded("mix");
    let database = Database::new();
    for _ in 0..times(10, 100) {
        let input = mix(&mut random, 150);
        let batch_rows = random.usize(1..200);
        for strategy in STRATEGIES {
            load(&database, "mix", strategy, batch_rows, input.clone());
        }
    }
}

#[test]
fn for_any_bad_rows_and_any_batch_size_the_rejected_set_is_the_planted_set() {
    let database = Database::new();
    let fate = prop_oneof![
        4 => Just(Fate::Good),
        1 => proptest::sample::select(Vec::from_iter(Kind::all())).prop_map(Fate::Bad),
    ];
    let case = (
        proptest::collection::vec(fate, 1..60),
        1..70usize,
        0..STRATEGIES.len(),
        any::<u64>(),
    );
    let config = Config {
        cases: times(30, 600) as u32,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let seed = seeded("any bad rows").u128(..).to_le_bytes().repeat(2);
    let source = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, source);
    runner
        .run(&case, |(fates, batch_rows, strategy, seed)| {
            let input = Input::planned(1, &fates, &mut fastrand::Rng::with_seed(seed));
            let case = Case::new(&database, input);
            let ran = case
                .load()
                .args(["--strategy", STRATEGIES[strategy]])
                .args(["--batch-rows", &batch_rows.to_string(), "-j", "1"])
                .run();
            let verdict = case.verdict(&ran);
            if verdict.is_clean() {
                Ok(())
            } else {
                Err(TestCaseError::fail(format!("{verdict:?}\n{ran}")))
            }
        })
        .unwrap();
}

/// Deferred constraints speak at COMMIT only, unless they are made to.
#[test]
fn rows_that_only_a_deferred_constraint_refuses_are_put_aside() {
    let mut random = seeded("deferred");
    let database = Database::new();
    for strategy in STRATEGIES {
        let mut fates = vec![Fate::Good; 40];
        for _ in 0..6 {
            fates[random.usize(..40)] = Fate::Bad(Kind::NoParent);
        }
        let case = Case::new(&database, Input::planned(1, &fates, &mut random));
        database.run(&format!(
            "ALTER TABLE {0} ALTER CONSTRAINT {0}_p_fkey DEFERRABLE INITIALLY DEFERRED",
            case.table
        ));
        let ran = case.load_by(strategy).flags("--batch-rows 16").run();
        case.exact(&format!("deferred, {strategy}"), &ran);
    }
}

/// A server that speaks German: `COPY t, Zeile 3, Spalte n: »x«`.
///
/// gettext looks at `LANGUAGE` only when a process starts, so a run of the command with it in its
/// environment holds the server.
#[test]
#[ignore = "needs PostgreSQL's German messages; `make test` runs it where they are installed"]
fn a_server_that_speaks_another_language_is_understood() {
    let server = Server::held_by_a_load(&[("LANGUAGE", "de")]);
    server
        .session("postgres")
        .run("ALTER ROLE postgres SET lc_messages = 'C.UTF-8'");
    let database = Database::on(&server);
    let error = database.session().try_run("SELECT 'x'::int").unwrap_err();
    let message = error.as_db_error().unwrap().message().to_owned();
    assert!(message.contains("ungültig"), "not in German: {message}");
    let mut random = seeded("German");
    for _ in 0..times(2, 10) {
        let input = mix(&mut random, 100);
        for strategy in STRATEGIES {
            let batch_rows = random.usize(1..200);
            load(&database, "German", strategy, batch_rows, input.clone());
        }
    }
}

/// Column type or constraint, a good value and a bad one, the SQLSTATE of the bad one. None of these
/// codes is about data by its class; each is found out by failing alone.
const ODD: [(&str, &str, &str, &str); 12] = [
    ("tsquery", "a & b", "a & ", "42601"),
    ("jsonpath", "$.a", "$.", "42601"),
    ("ltree", "a.b", "a..b", "42601"),
    // From 16 on it is 42601.
    ("hstore", "a=>1", "a", "XX000 42601"),
    ("regclass", "pg_class", "no_such_table", "42P01"),
    ("regtype", "int4", "no_such_type", "42704"),
    ("regproc", "now", "no_such_function", "42883"),
    ("regnamespace", "public", "no_such_schema", "3F000"),
    ("text CHECK (judge(v, 'ZZ001'))", "good", "bad", "ZZ001"),
    ("text CHECK (judge(v, '42501'))", "good", "bad", "42501"),
    ("text CHECK (judge(v, '0A000'))", "good", "bad", "0A000"),
    ("text CHECK (judge(v, '40001'))", "good", "bad", "40001"),
];

#[test]
fn a_row_is_to_blame_when_it_fails_alone_whatever_its_code() {
    let database = Database::with(
        "CREATE EXTENSION ltree; CREATE EXTENSION hstore;
         CREATE FUNCTION judge(v text, code text) RETURNS bool LANGUAGE plpgsql AS
             $$ BEGIN IF v = 'bad' THEN RAISE 'no' USING ERRCODE = code; END IF; RETURN true; END $$",
    );
    for (number, (kind, good, bad, code)) in ODD.into_iter().enumerate() {
        for strategy in STRATEGIES {
            let table = format!("odd_{number}_{}", strategy.replace('-', "_"));
            database.run(&format!("CREATE TABLE {table} (id int, v {kind})"));
            let line = |id: usize| {
                let value = if id % 20 == 7 { bad } else { good };
                format!("{id},\"{}\"\n", value.replace('"', "\"\""))
            };
            let load = database
                .load_once(&table)
                .flags("--no-header --columns id,v -j 1");
            // A fault that ought to pass is retried first, so let that be quick.
            let load = load.flags("--max-retries 3 --batch-rows 40 --strategy");
            let ran = load
                .arg(strategy)
                .run_on((1..=80).map(line).collect::<String>());
            assert_eq!(ran.code, Some(3), "{kind}, {strategy}: {ran}");
            assert_eq!(ran.rows("loaded"), 76, "{kind}, {strategy}: {ran}");
            let rejects = database.lines(&format!(
                "SELECT DISTINCT sqlstate FROM pgrung.rejects JOIN pgrung.imports USING (import_id)
                 WHERE target LIKE '%\"{table}\"'"
            ));
            assert_eq!(rejects.len(), 1, "{kind}, {strategy}: {ran}");
            assert!(code.contains(&rejects[0]), "{kind}, {strategy}: {ran}");
        }
    }
}

#[test]
fn a_statement_that_fails_with_any_row_blames_none_of_them() {
    let database = Database::with(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN
                 IF (SELECT count(*) FROM door) > 0 THEN
                     RAISE 'the table is closed' USING ERRCODE = 'ZZ002';
                 END IF;
                 RETURN NULL;
             END $$;
         CREATE TABLE door (id int)",
    );
    for strategy in STRATEGIES {
        let table = format!("closed_{}", strategy.replace('-', "_"));
        database.run(&format!(
            "CREATE TABLE {table} (id int);
             CREATE TRIGGER never BEFORE INSERT ON {table} EXECUTE FUNCTION never();
             CREATE FUNCTION close_{table}() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO door VALUES (1); RETURN NULL; END $$;
             CREATE TRIGGER then_close AFTER INSERT ON {table} FOR EACH ROW
                 WHEN (new.id = 2) EXECUTE FUNCTION close_{table}();
             TRUNCATE door"
        ));
        let load = database
            .load_once(&table)
            .flags("--no-header -j 1 --batch-rows 2 --strategy");
        let ran = load.arg(strategy).run_on("1\n2\n3\n4\n5\n");
        ran.exits(1).says(&["ZZ002", "the table is closed"]);
        assert_eq!(ran.rows("rejected"), 0, "{ran}");
        assert_eq!(database.count(&table), 2, "{strategy}: {ran}");
    }
}

/// From the 151st row on something beside the table refuses every row: a disk that is full, or what a
/// trigger reaches elsewhere. Each fails alone then, and none is to blame.
#[test]
fn a_fault_that_refuses_every_row_one_by_one_blames_none_of_them() {
    for (code, most) in [("53100", 0), ("58030", 0), ("08001", 10), ("57014", 10)] {
        for commits in [
            "--strategy copy --batch-rows 1000",
            "--strategy copy --batch-rows 1",
            "--strategy multi-insert --batch-rows 60",
            "--strategy insert --commit row --no-ledger --rejects rejects.csv",
        ] {
            let database = Database::with(&format!(
                "CREATE TABLE t (id int);
                 CREATE FUNCTION reach() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN
                         IF NEW.id > 150 THEN RAISE 'not there' USING ERRCODE = '{code}'; END IF;
                         RETURN NEW;
                     END $$;
                 CREATE TRIGGER reach BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION reach()"
            ));
            let files = Files::new();
            let rejects = files.path("rejects.csv");
            let commits = commits.replace("rejects.csv", rejects.to_str().unwrap());
            let load = database
                .load_once("t")
                .flags("--no-header -j 1 --max-retries 1")
                .flags(&commits);
            let ran = load.run_on((1..=400).map(|id| format!("{id}\n")).collect::<String>());
            ran.exits(1).says(&[code]);
            assert!(ran.rows("rejected") <= most, "{code}, {commits}: {ran}");
        }
    }
}

/// Until PostgreSQL 16 hstore refuses a value with the code of an internal error, which is tried again.
#[test]
fn a_long_run_of_values_that_an_input_function_refuses_stops_nothing() {
    let database = Database::with("CREATE EXTENSION hstore; CREATE TABLE t (id int, v hstore)");
    for flags in RUNGS
        .into_iter()
        .chain(["--strategy insert --commit row --no-ledger"])
    {
        database.run("TRUNCATE t");
        let files = Files::new();
        let line = |id: usize| match (200..240).contains(&id) {
            true => format!("{id},a\n"),
            false => format!("{id},a=>{id}\n"),
        };
        let load = match flags.contains("--no-ledger") {
            true => {
                let load = database.load_once("t").arg("--rejects");
                load.arg(files.path("rejects.csv"))
            }
            false => database.load("t"),
        };
        let load = load.flags("--no-header -j 1 --max-retries 3");
        let rows = files.write("rows.csv", (1..=300).map(line).collect::<String>());
        let ran = load.flags(flags).arg(rows).run();
        ran.exits(3);
        assert_eq!(
            (ran.rows("loaded"), ran.rows("rejected")),
            (260, 40),
            "{ran}"
        );
    }
}
