//! Thirty nights of one job file, one after the other, as `fixtures/nights/nights.toml` tells them:
//! how each ends, what the tables hold then, and that nothing is left behind.

mod model;
mod script;

use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Cmd, Database, Files, Pooler, Ran, Running, Server, Session, gzip, names_in, nothing_in,
    pgrung, wait_until,
};
use model::{LOADS, Model};
use script::{First, Night, nights};

const TABLES: &str = include_str!("../../../fixtures/nights/tables.sql");
const JOB: &str = include_str!("../../../fixtures/nights/nightly.toml");

/// Outcomes of rows, as the script names them.
const OUTCOMES: [&str; 10] = [
    "inserted",
    "updated",
    "unchanged",
    "ignored",
    "superseded",
    "already_loaded",
    "staged",
    "rejected",
    "dropped",
    "suppressed",
];

/// The place where the nights are played.
struct Stage {
    database: Arc<Database>,
    dsn: String,
    files: Files,
    model: Model,
}

#[test]
fn thirty_nights_end_as_they_should() {
    let database = Database::on(&Server::start(&[]));
    let dsn = database.dsn();
    play(database, dsn);
}

#[test]
fn thirty_nights_end_as_they_should_behind_a_pooler() {
    let database = Database::on(&Server::start(&[]));
    let pooler = Pooler::start(&database.server, 6, "server_login_retry = 1");
    let dsn = pooler.dsn(&database.name);
    play(database, dsn);
}

fn play(database: Arc<Database>, dsn: String) {
    database.run(TABLES);
    let files = Files::new();
    files.write("nightly.toml", JOB);
    for dir in ["drop", "told"] {
        fs::create_dir(files.path(dir)).unwrap();
    }
    let mut stage = Stage {
        database,
        dsn,
        files,
        model: Model::default(),
    };
    let nights = nights();
    assert_eq!(nights.len(), 30);
    for (number, night) in (1..).zip(&nights) {
        eprintln!("night {number}: {}", night.story);
        stage.arrive(night);
        let runs = stage.run(night);
        stage.ended(night, runs.last().unwrap());
        stage.holds(night, &runs);
        stage.replays(night);
        stage.is_clean(night);
    }
}

impl Stage {
    /// What comes and goes before the run.
    fn arrive(&mut self, night: &Night) {
        let path = |name: &String| self.files.path("drop").join(name);
        for (name, text) in &night.drop {
            fs::write(path(name), packed(name, text)).unwrap();
        }
        for (name, other) in &night.same {
            let text = fs::read_to_string(path(other)).unwrap();
            fs::write(path(name), packed(name, &text)).unwrap();
        }
        for name in &night.half {
            let bytes = fs::read(path(name)).unwrap();
            fs::write(path(name), &bytes[..bytes.len() / 2]).unwrap();
        }
        for name in &night.gone {
            fs::remove_file(path(name)).unwrap();
        }
        if let Some(sql) = &night.sql {
            self.database.run(sql);
            for load in &LOADS {
                if self.database.count(load.name) == 0 {
                    self.model.emptied(load.name);
                }
            }
        }
    }

    fn nightly(&self, night: &Night) -> Cmd {
        let run = pgrung("run")
            .arg(self.files.path("nightly.toml"))
            .dsn(&self.dsn);
        let variables = night.env.iter();
        variables.fold(run, |run, (name, value)| run.env(name, value))
    }

    /// The run of the night, with what happens before and meanwhile.
    fn run(&self, night: &Night) -> Vec<Ran> {
        let run = self.nightly(night);
        if let Some(seconds) = night.away {
            return vec![self.away(&run, seconds)];
        }
        match &night.first {
            None => vec![run.run()],
            Some(first) => self.after(first, &run),
        }
    }

    fn away(&self, run: &Cmd, seconds: u64) -> Ran {
        let server = self.database.server.clone();
        server.embedded().shutdown(false).unwrap();
        let comes_back = thread::spawn(move || {
            thread::sleep(Duration::from_secs(seconds));
            server.embedded().start_again().unwrap();
        });
        let ran = run.run();
        comes_back.join().unwrap();
        ran
    }
}

impl Stage {
    /// Starts a run and waits until it waits for what the session has locked.
    fn held_up(&self, run: &Cmd, lock: &str) -> (Running, Session) {
        let session = self.database.session();
        session.run(&format!("BEGIN; {lock}"));
        let holder = session.number("SELECT pg_backend_pid()");
        // Workers wait for one another, too.
        let held_up = format!("{holder} = ANY (pg_blocking_pids(pid))");
        let mut running = run.spawn();
        wait_until("it is held up", || {
            running.has_ended() || self.database.loaders(&held_up) > 0
        });
        running.still_runs();
        (running, session)
    }

    /// The run, and another one before it.
    fn after(&self, first: &First, run: &Cmd) -> Vec<Ran> {
        if let Some(point) = &first.dies_at {
            run.clone().env("PGRUNG_ABORT_AT", point).run().aborted();
            return vec![run.run()];
        }
        let (running, lock) = self.held_up(run, &first.locked);
        let (ended, ran) = match first.then.as_str() {
            "Ctrl-C" => {
                running.signal(Signal::SIGINT);
                let ended = running.wait();
                drop(lock);
                (ended, run.run())
            }
            "the server is killed" => {
                self.database.server.embedded().restart(true).unwrap();
                (running.wait(), run.run())
            }
            "another run comes" => {
                let mut second = run.spawn();
                wait_until("it has met the other one", || {
                    second.has_ended() || second.stderr().contains("it is waited for (")
                });
                drop(lock);
                (running.wait(), second.wait())
            }
            "it hangs" => {
                running.signal(Signal::SIGSTOP);
                drop(lock);
                let ran = run.run();
                running.signal(Signal::SIGCONT);
                (running.wait(), ran)
            }
            other => panic!("{other}"),
        };
        let says: Vec<&str> = first.says.iter().map(String::as_str).collect();
        ended.exits(first.exit).says(&says);
        self.told_its_hook(&ended);
        vec![ended, ran]
    }

    /// Exit codes, what became of the rows, and what was told to whom.
    fn ended(&self, night: &Night, ran: &Ran) {
        let says: Vec<&str> = night.says.iter().map(String::as_str).collect();
        ran.exits(night.exit).says(&says);
        let summary = ran.summary();
        let not_run = summary["not_run"].as_array().unwrap().iter();
        let not_run: Vec<&str> = not_run.map(|load| load["name"].as_str().unwrap()).collect();
        assert_eq!(not_run, night.not_run);
        for load in &LOADS {
            let Some(account) = account(ran, load.name) else {
                assert!(not_run.contains(&load.name), "{ran}");
                continue;
            };
            assert_eq!(account["balanced"], true, "{ran}");
            let found = told(account);
            match night.ends.get(load.name) {
                Some(expected) => assert_eq!(found, *expected, "{}: {ran}", load.name),
                None => {
                    assert!(found.starts_with("0: "), "{}: {found}: {ran}", load.name);
                    let changes = ["updated", "rejected"]
                        .iter()
                        .any(|word| found.contains(word));
                    assert!(!changes, "{}: {found}", load.name);
                }
            }
        }
        self.told_its_hook(ran);
        nothing_in(&self.files.path("told"));
    }

    /// The hook that fits the end got the summary, and got it once.
    fn told_its_hook(&self, ran: &Ran) {
        let summary = ran.summary();
        let told = self.files.path("told");
        let mut names = names_in(&told);
        names.retain(|name| {
            let text = fs::read(told.join(name)).unwrap();
            let told: Value = serde_json::from_slice(&text).unwrap();
            told["loads"] == summary["loads"] && told["exit_code"] == summary["exit_code"]
        });
        let hook = match ran.finished() {
            true => "success",
            false => "failure",
        };
        assert!(
            names.len() == 1 && names[0].starts_with(hook),
            "{names:?}: {ran}"
        );
        fs::remove_file(told.join(&names[0])).unwrap();
    }

    /// The tables, and what was put aside.
    fn holds(&mut self, night: &Night, runs: &[Ran]) {
        for load in &LOADS {
            let mut accounts = runs.iter().filter_map(|ran| account(ran, load.name));
            let finished =
                accounts.any(|account| matches!(account["exit_code"].as_i64(), Some(0 | 3)));
            if finished || night.in_table.is_some() && load.name == "sales" {
                self.model.load(load, &self.files_of(load.name), night);
            }
        }
        self.is_as_the_model();
        let aside = fs::read_to_string(self.files.path("bad-sales.csv")).unwrap_or_default();
        let aside: Vec<&str> = aside.lines().skip(1).collect();
        if night
            .ends
            .get("sales")
            .is_some_and(|end| end.starts_with("3:"))
        {
            assert_eq!(aside, night.aside);
        }
    }

    #[track_caller]
    fn is_as_the_model(&self) {
        for load in &LOADS {
            let mut expected = self.model.rows(load.name);
            let mut found = self.database.rows(load.name);
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{}", load.name);
        }
        let view = "SELECT * FROM by_city ORDER BY 1";
        let fresh = "SELECT city, count(*) FROM customers GROUP BY city ORDER BY 1";
        assert_eq!(self.database.lines(view), self.database.lines(fresh));
    }

    /// The files that a load has read, unpacked. One that cannot be unpacked is empty.
    fn files_of(&self, load: &str) -> Vec<(String, String)> {
        let dir = self.files.path("drop");
        let names = names_in(&dir);
        let names = names.into_iter().filter(|name| name.starts_with(load));
        let text = |name: String| {
            let bytes = fs::read(dir.join(&name)).unwrap();
            let mut text = String::new();
            match name.ends_with(".gz") {
                true => {
                    let mut unpacked = flate2::read::MultiGzDecoder::new(&bytes[..]);
                    if unpacked.read_to_string(&mut text).is_err() {
                        text.clear();
                    }
                }
                false => text = String::from_utf8(bytes).unwrap(),
            }
            (name, text)
        };
        names.map(text).collect()
    }

    /// Loads what was put aside once more.
    fn replays(&mut self, night: &Night) {
        for (load, told) in &night.replay {
            let status = pgrung("status --json --job").arg(load).dsn(&self.dsn).run();
            let imports = status.exits(0).json();
            let open = imports.as_array().unwrap().iter();
            let open = open.filter(|import| import["rejects_open"] != 0);
            let mut found: Vec<String> = open
                .map(|import| {
                    let import = import["import_id"].as_str().unwrap();
                    let ran = pgrung("replay").arg(import).dsn(&self.dsn).run();
                    ran.stdout.split(", in ").next().unwrap().to_owned()
                })
                .collect();
            found.sort();
            assert_eq!(found, *told);
            let load = LOADS.iter().find(|known| known.name == load).unwrap();
            self.model.replay(load);
        }
        self.is_as_the_model();
    }

    /// Nothing waits to be merged, nobody is at it, and each import is complete that should be.
    fn is_clean(&self, night: &Night) {
        let left = "SELECT (SELECT count(*) FROM pgrung.stagings)
                         + (SELECT count(*) FROM pg_class WHERE relname ~ '_staging_')
                         + (SELECT count(*) FROM pgrung.leases WHERE renewed_at > '-infinity')";
        assert_eq!(self.database.number(left), 0);
        let status = pgrung("status --json").dsn(&self.dsn).run();
        let imports = status.exits(0).json();
        let open = imports.as_array().unwrap().iter();
        let open = open.filter(|import| import["finished_at"].is_null());
        let mut open: Vec<&str> = open.map(|import| import["job"].as_str().unwrap()).collect();
        open.dedup();
        assert_eq!(open, night.unfinished, "{imports:#}");
    }
}

fn packed(name: &str, text: &str) -> Vec<u8> {
    match name.ends_with(".gz") {
        true => gzip(text.as_bytes()),
        false => text.as_bytes().to_vec(),
    }
}

/// What the summary has of a load.
fn account<'a>(ran: &'a Ran, load: &str) -> Option<&'a Value> {
    let mut loads = ran.summary()["loads"].as_array().unwrap().iter();
    loads.find(|account| account["name"] == load)
}

/// How a load ended, as the script says it.
fn told(account: &Value) -> String {
    let number = |name: &str| account["rows"][name].as_u64().unwrap();
    let named = |name: &&str| (number(name) > 0).then(|| format!("{} {name}", number(name)));
    let became: Vec<String> = OUTCOMES.iter().filter_map(named).collect();
    let mut told = format!("{}: {} read", account["exit_code"], number("read"));
    if !became.is_empty() {
        told = format!("{told} = {}", became.join(" + "));
    }
    if number("deleted") > 0 {
        told = format!("{told}, {} deleted", number("deleted"));
    }
    told
}
