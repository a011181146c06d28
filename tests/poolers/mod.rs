//! Through pgbouncer in transaction mode, which hands each transaction to whichever server
//! connection is free: what one transaction leaves on a connection is another program's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::support::{Database, Deal, Files, Message, Pooler, Proxy, RUNGS, Side, pgrung};

/// Every kind of column that needs a word of its own: the client library looks up what an enum is.
const TABLE: &str = "CREATE TYPE mood AS ENUM ('sad', 'glad');
                     CREATE TABLE t (id int NOT NULL, m mood, ms mood[], note text)";

/// Rows `1..=rows`; of every `bad` one has no number.
fn csv(rows: usize, bad: usize) -> String {
    wide_csv(rows, bad, 0)
}

/// As [`csv`], each row with a note of so many bytes.
fn wide_csv(rows: usize, bad: usize, width: usize) -> String {
    let note = "n".repeat(width);
    let line = |id: usize| match bad > 0 && id.is_multiple_of(bad) {
        true => format!("no number {id},sad,{{}},{note}\n"),
        false => format!("{id},glad,\"{{sad,glad}}\",{note}\n"),
    };
    std::iter::once("id,m,ms,note\n".to_owned())
        .chain((1..=rows).map(line))
        .collect()
}

/// What goes past the proxy on one connection.
#[derive(Default)]
struct Line {
    in_transaction: bool,
    /// Statements that were named in the transaction.
    named: HashSet<Vec<u8>>,
}

impl Line {
    /// What is wrong with a message of the client, if anything.
    fn fault(&mut self, message: &Message<'_>) -> Option<String> {
        let name_at = |at: usize| {
            let rest = message.body.get(at..).unwrap_or_default();
            rest.split(|byte| *byte == 0).next().unwrap().to_vec()
        };
        let name = match message.tag {
            b'P' => name_at(0),
            // Of the portal, then of the statement.
            b'B' => name_at(name_at(0).len() + 1),
            b'C' | b'D' => name_at(1),
            _ => return None,
        };
        let word = || format!("{} {}", message.tag as char, String::from_utf8_lossy(&name));
        if name.is_empty() {
            return None;
        }
        if !self.in_transaction {
            return Some(format!("outside a transaction: {}", word()));
        }
        if message.tag == b'P' {
            self.named.insert(name);
            return None;
        }
        (!self.named.contains(&name)).then(|| format!("of another transaction: {}", word()))
    }

    fn answered(&mut self, message: &Message<'_>) {
        if message.tag == b'Z' {
            self.in_transaction = message.body != b"I";
            if !self.in_transaction {
                self.named.clear();
            }
        }
    }
}

#[test]
fn a_named_statement_is_used_in_the_transaction_that_named_it_and_nowhere_else() {
    let database = Database::with(TABLE);
    let pooler = Pooler::start(&database.server, 2, "");
    let files = Files::new();
    let file = files.write("rows.csv", csv(300, 50));
    for rung in RUNGS {
        for ledger in ["", "--no-ledger"] {
            database.run("TRUNCATE t");
            let faults = Arc::new(Mutex::new(Vec::new()));
            let (noted, mut lines) = (faults.clone(), HashMap::<usize, Line>::new());
            let proxy = Proxy::start(pooler.port(), move |message| {
                let line = lines.entry(message.connection).or_default();
                match message.side {
                    Side::Client => noted.lock().unwrap().extend(line.fault(message)),
                    Side::Server => line.answered(message),
                }
                Deal::Forward
            });
            let load = pgrung("load -t t --batch-rows 20 -j 2").dsn(&proxy.dsn(&database.name));
            let load = load.flags(rung).flags(ledger);
            let load = match ledger {
                "" => load.arg("--restart"),
                _ => load.arg("--rejects").arg(files.path("rejects.csv")),
            };
            load.arg(&file).run().exits(3);
            assert_eq!(database.count("t"), 294, "{rung} {ledger}");
            let faults = faults.lock().unwrap();
            assert_eq!(*faults, Vec::<String>::new(), "{rung} {ledger}");
        }
    }
    pooler.is_whole(&database.name, 2);
}

#[test]
fn a_thousand_rejects_leave_a_pool_of_two_whole() {
    let database = Database::with(TABLE);
    let pooler = Pooler::start(&database.server, 2, "");
    let files = Files::new();
    // Half a MiB a batch: most of it is still on its way when the server refuses the fifth row.
    let file = files.write("rows.csv", wide_csv(5000, 5, 1000));
    for rung in RUNGS {
        database.run("TRUNCATE t");
        let load =
            pgrung("load -t t --restart -j 2 --batch-rows 500").dsn(&pooler.dsn(&database.name));
        let ran = load.flags(rung).arg(&file).run();
        ran.exits(3);
        assert_eq!(ran.rows("rejected"), 1000, "{rung}");
        assert_eq!(database.count("t"), 4000, "{rung}");
        pooler.is_whole(&database.name, 2);
    }
}

#[test]
fn two_loads_through_one_pool_fill_each_its_own_table() {
    let database = Database::with(
        "CREATE TABLE a (id int, who text DEFAULT 'a'); CREATE TABLE b (id int, who text DEFAULT 'b')",
    );
    let pooler = Pooler::start(&database.server, 2, "");
    let files = Files::new();
    let file = files.write(
        "rows.csv",
        (1..=600).map(|id| format!("{id}\n")).collect::<String>(),
    );
    for rung in RUNGS {
        database.run("TRUNCATE a, b");
        let load = |table: &str| {
            let load = pgrung("load --restart -j 2 --batch-rows 20 --no-header --columns id");
            let load = load.dsn(&pooler.dsn(&database.name)).flags(rung);
            load.args(["-t", table]).arg(&file).spawn()
        };
        let both = [load("a"), load("b")];
        for running in both {
            running.wait().exits(0);
        }
        for table in ["a", "b"] {
            let sum = format!("SELECT count(*), sum(id), min(who), max(who) FROM {table}");
            assert_eq!(
                database.lines(&sum),
                [format!("600|180300|{table}|{table}")],
                "{rung}"
            );
        }
    }
    pooler.is_whole(&database.name, 2);
}

#[test]
fn statements_that_another_program_left_behind_are_in_nobodys_way() {
    let database = Database::with(TABLE);
    let pooler = Pooler::start(&database.server, 1, "");
    let files = Files::new();
    let file = files.write("rows.csv", csv(300, 0));
    let other = pooler.session(&database.name).unwrap();
    for number in 0..500 {
        other.run(&format!("PREPARE s{number} AS SELECT {number}"));
    }
    let load = pgrung("load -t t --batch-rows 20 -j 1 --strategy multi-insert");
    load.dsn(&pooler.dsn(&database.name))
        .arg(&file)
        .run()
        .exits(0);
    assert_eq!(database.count("t"), 300);
    let left = "SELECT count(*) FROM pg_prepared_statements";
    assert_eq!(other.number(left), 500, "they are the other's");
}

#[test]
fn nothing_of_a_load_is_left_on_the_servers_connections() {
    let database = Database::with(TABLE);
    let pooler = Pooler::start(&database.server, 1, "");
    let files = Files::new();
    let file = files.write("rows.csv", csv(100, 10));
    let pgrung = |words: &str| pgrung(words).dsn(&pooler.dsn(&database.name));
    pgrung("load -t t --batch-rows 20 --import-id i")
        .arg(&file)
        .run()
        .exits(3);
    pgrung("status").run().exits(0);
    pgrung("replay i").run().exits(3);
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(
        database.number(held),
        0,
        "a lock of a session outlives the load"
    );
    pooler.is_whole(&database.name, 1);
}

#[test]
fn a_pooler_that_changes_servers_with_every_statement_is_named_as_what_stands_in_the_way() {
    let database = Database::with(TABLE);
    let pooler = Pooler::start(&database.server, 2, "");
    let statement_pooler = Pooler::start(&database.server, 2, "pool_mode = statement");
    let files = Files::new();
    let file = files.write("rows.csv", csv(100, 10));
    let load = |pooler: &Pooler| {
        pgrung("load -t t")
            .dsn(&pooler.dsn(&database.name))
            .arg(&file)
    };
    load(&statement_pooler)
        .run()
        .exits(1)
        .says(&["a pooler in statement mode"]);
    assert_eq!(database.count("t"), 0);
    load(&pooler).run().exits(3);
}

#[test]
fn a_fault_that_passes_is_waited_out_by_rows_that_commit_alone() {
    let database = Database::with(
        "CREATE TABLE t (id int);
         CREATE SEQUENCE tries;
         CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN
                 IF NEW.id = 5 AND nextval('tries') <= 2 THEN
                     RAISE 'busy' USING ERRCODE = '40001';
                 END IF;
                 RETURN NEW;
             END $$;
         CREATE TRIGGER busy BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION busy()",
    );
    let pooler = Pooler::start(&database.server, 2, "");
    let load = pgrung("load -t t --strategy insert --commit row --no-ledger --no-header -");
    let load = load.dsn(&pooler.dsn(&database.name));
    let ran = load.run_on((1..=9).map(|id| format!("{id}\n")).collect::<String>());
    ran.exits(0).says(&["40001", "trying again"]);
    assert_eq!(database.count("t"), 9);
    pooler.is_whole(&database.name, 2);
}

/// A server connection is one client's as long as that is there, and then the next one's.
#[test]
fn in_session_mode_every_rung_loads_and_leaves_nothing_behind() {
    let database = Database::with(TABLE);
    // The workers' connections and the one beside them.
    let pooler = Pooler::start(&database.server, 3, "pool_mode = session\n");
    let files = Files::new();
    let file = files.write("rows.csv", csv(1000, 10));
    for rung in RUNGS {
        database.run("TRUNCATE t");
        let load = pgrung("load -t t --restart -j 2 --batch-rows 100");
        let load = load.dsn(&pooler.dsn(&database.name)).flags(rung);
        load.arg(&file).run().exits(3);
        assert_eq!(database.count("t"), 900, "{rung}");
        pooler.is_whole(&database.name, 3);
    }
}
