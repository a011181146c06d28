//! Bad rows of every kind, anywhere among good ones: the rejected set is the planted set.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::support::{
    Case, Database, Fate, Input, Kind, STRATEGIES, Server, seeded, times, torture,
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
