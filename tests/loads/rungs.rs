//! What holds for every rung alike, whatever its statements are.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::support::{Database, Files, RUNGS, Ran, Server, pgrung};

/// Loads whatever was loaded before.
fn load(database: &Database, table: &str, file: &str, flags: &str) -> Ran {
    match flags.contains("--no-ledger") {
        true => database.load_once(table).arg(file).flags(flags).run(),
        false => database.loads(table, &file, flags),
    }
}

#[test]
fn a_rule_on_insert_is_refused_before_the_first_row_by_every_rung() {
    let database = Database::with(
        "CREATE TABLE other (id int);
         CREATE TABLE instead (id int);
         CREATE RULE \"goes there\" AS ON INSERT TO instead DO INSTEAD INSERT INTO other VALUES (NEW.id);
         CREATE TABLE also (id int);
         CREATE RULE noted AS ON INSERT TO also DO ALSO INSERT INTO other VALUES (NEW.id);
         CREATE TABLE nothing (id int);
         CREATE RULE odd AS ON INSERT TO nothing WHERE NEW.id > 1 DO INSTEAD NOTHING;
         CREATE TABLE always (id int);
         CREATE RULE always AS ON INSERT TO always DO INSTEAD NOTHING;
         ALTER TABLE always ENABLE ALWAYS RULE always",
    );
    let files = Files::new();
    let file = files.write("id.csv", "id\n1\n2\n");
    for (table, rule) in [
        ("instead", "\"goes there\""),
        ("also", "\"noted\""),
        ("nothing", "\"odd\""),
        ("always", "\"always\""),
    ] {
        for rung in RUNGS {
            for ledger in ["", "--no-ledger"] {
                let ran = load(&database, table, &file, &format!("{rung} {ledger}"));
                ran.exits(2)
                    .says(&[&format!("rule {rule}"), "COPY passes over it"]);
                assert_eq!(database.count(table) + database.count("other"), 0);
            }
        }
    }
}

#[test]
fn a_rule_that_does_not_fire_is_no_reason_to_refuse() {
    let database = Database::with(
        "CREATE TABLE t (id int);
         CREATE RULE off AS ON INSERT TO t DO INSTEAD NOTHING;
         CREATE RULE replica AS ON INSERT TO t DO INSTEAD NOTHING;
         CREATE RULE other AS ON DELETE TO t DO ALSO NOTIFY deleted;
         ALTER TABLE t DISABLE RULE off, ENABLE REPLICA RULE replica",
    );
    let files = Files::new();
    let file = files.write("id.csv", "id\n1\n2\n");
    for (number, rung) in (1..).zip(RUNGS) {
        database.loads("t", &file, rung).exits(0);
        assert_eq!(database.count("t"), 2 * number, "{rung}");
    }
    let role = "ALTER ROLE postgres IN DATABASE";
    let name = &database.name;
    database.run(&format!(
        "{role} {name} SET session_replication_role = replica"
    ));
    let ran = database.loads("t", &file, "");
    ran.exits(2).says(&["rule \"replica\""]);
}

/// Each row notes what its commit waits for.
const NOTED: &str =
    "CREATE TABLE t (id int, how text DEFAULT current_setting('synchronous_commit'))";

#[test]
fn durability_holds_for_every_rung_and_commit_and_is_the_servers_own_if_not_given() {
    let database = Database::with(NOTED);
    let name = &database.name;
    database.run(&format!(
        "ALTER DATABASE {name} SET synchronous_commit = local"
    ));
    let files = Files::new();
    let file = files.write("id.csv", "id\n1\n2\n3\n");
    let commits = ["--no-ledger", "", "--commit load --no-ledger -j 1"];
    for rung in RUNGS {
        for commit in commits {
            if rung.contains("--commit") && commit.contains("--commit") {
                continue;
            }
            for (given, wanted) in [
                ("", "local"),
                ("--durability off", "off"),
                ("--durability end", "off"),
                ("--durability on", "on"),
                ("--durability remote-apply", "remote_apply"),
                ("--profile audit", "on"),
                ("--profile bulk", "off"),
            ] {
                database.run("TRUNCATE t");
                let flags = format!("{rung} {commit} {given} --batch-rows 2");
                load(&database, "t", &file, &flags).exits(0);
                let how = database.lines("SELECT how, count(*) FROM t GROUP BY 1");
                assert_eq!(how, [format!("{wanted}|3")], "{flags}");
            }
        }
    }
}

#[test]
fn durability_of_a_commit_a_row_keeps_the_options_of_the_connection() {
    let database = Database::with(
        "CREATE TABLE t (id int, how text DEFAULT concat(current_setting('synchronous_commit'), ' ', current_setting('work_mem')))",
    );
    let files = Files::new();
    let file = files.write("id.csv", "id\n1\n");
    let load = pgrung("load -t t --no-ledger --durability off").arg(&file);
    let dsn = format!("{} options='-c work_mem=7MB'", database.dsn());
    load.flags(RUNGS[0]).dsn(&dsn).run().exits(0);
    assert_eq!(database.rows("t"), ["1|off 7MB"]);
}

/// A relay that takes the options out of the start-up message, as a pooler may.
fn without_options(upstream: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut length = [0; 4];
            client.read_exact(&mut length).unwrap();
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            client.read_exact(&mut startup).unwrap();
            let at = startup.windows(8).position(|word| word == b"options\0");
            if let Some(at) = at {
                let end = at
                    + 8
                    + startup[at + 8..]
                        .iter()
                        .position(|byte| *byte == 0)
                        .unwrap();
                startup.drain(at..=end);
            }
            let mut server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
            let length = startup.len() as u32 + 4;
            server.write_all(&length.to_be_bytes()).unwrap();
            server.write_all(&startup).unwrap();
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut up, &mut server));
            thread::spawn(move || io::copy(&mut down, &mut client));
        }
    });
    port
}

#[test]
fn durability_of_a_commit_a_row_is_refused_where_a_pooler_keeps_it_from_the_server() {
    let database = Database::with(NOTED);
    let files = Files::new();
    let file = files.write("id.csv", "id\n1\n");
    let port = without_options(database.server.port());
    let dsn = format!(
        "host=127.0.0.1 port={port} user=postgres dbname={} sslmode=disable",
        database.name
    );
    let load = pgrung("load -t t --no-ledger").arg(&file).dsn(&dsn);
    let row = load.clone().flags(RUNGS[0]);
    let refused = row.clone().flags("--durability off").run();
    refused
        .exits(2)
        .says(&["--durability off", "synchronous_commit is still on"]);
    // What is no option of the session arrives.
    load.flags("--durability off").run().exits(0);
    row.run().exits(0);
    assert_eq!(database.rows("t"), ["1|off", "1|on"]);
}

#[test]
fn a_server_that_waits_for_its_disk_only_is_not_made_to_wait_for_a_standby() {
    // Nobody answers to that name: a commit that waits for standbys waits for ever.
    let server = Server::start(&[
        ("synchronous_commit", "local"),
        ("synchronous_standby_names", "nobody"),
    ]);
    let database = Database::on(&server);
    database.run(NOTED);
    let files = Files::new();
    let file = files.write("id.csv", "id\n1\n");
    let mut rows = 0;
    for flags in [
        "",
        "--durability end",
        "--durability off",
        "--no-ledger --durability end",
    ] {
        let ran = load(
            &database,
            "t",
            &file,
            &format!("{flags} --answer-timeout 5s"),
        );
        ran.exits(0);
        rows += 1;
        assert_eq!(database.count("t"), rows, "{flags}");
    }
}

#[test]
fn a_fault_that_passes_is_tried_again_and_one_that_stays_is_the_rows() {
    // What a sequence gives is not taken back: the second try is told from the first.
    let database = Database::with(
        "CREATE SEQUENCE tries;
         CREATE TABLE t (id int);
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.id = 2 AND nextval('tries') = 1 THEN
                 RAISE EXCEPTION 'once' USING ERRCODE = '40001';
             ELSIF NEW.id = 4 THEN
                 RAISE EXCEPTION 'always' USING ERRCODE = 'XX000';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    let files = Files::new();
    let file = files.write("id.csv", "id\n1\n2\n3\n4\n5\n");
    let bad = files.write("bad.csv", "");
    for rung in RUNGS {
        database.run("TRUNCATE t; ALTER SEQUENCE tries RESTART");
        let flags = format!("{rung} --no-ledger --rejects {bad}");
        load(&database, "t", &file, &flags).exits(3);
        assert_eq!(database.rows("t"), ["1", "2", "3", "5"], "{rung}");
        let rejects = std::fs::read_to_string(&bad).unwrap();
        assert_eq!(rejects, "\"id\"\n4\n", "{rung}");
    }
}

#[test]
fn rows_that_point_to_rows_before_them_are_all_loaded() {
    let files = Files::new();
    let line = |id: usize| format!("{id},{}\n", id.max(2) - 1);
    let rows = files.write("rows.csv", (1..=2000).map(line).collect::<String>());
    for rung in RUNGS {
        let database =
            Database::with("CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES t)");
        let load = database.load("t").flags("--no-header --batch-rows 100");
        let ran = load.flags(rung).arg(&rows).run();
        ran.exits(0).says(&["points to itself", "one worker"]);
        assert_eq!(database.count("t"), 2000, "{rung}");
    }
}
