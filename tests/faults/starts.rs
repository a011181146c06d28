//! Faults before the first row: what passes is waited out and said, what does not ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::server::free_port;
use crate::support::{Case, Database, Deal, Files, Input, Proxy, Server, Side, pgrung, times};

/// A load of one batch that does not wait long.
fn load(case: &Case, dsn: &str) -> crate::support::Cmd {
    let load = pgrung("load --progress none -j 1 --answer-timeout 700ms").dsn(dsn);
    load.args(["-t", &case.table]).arg(&case.file)
}

#[test]
fn a_server_that_falls_silent_at_any_message_is_given_up_for_a_new_connection() {
    let database = Database::new();
    // Both sides of every message of a load: in preparing, in its batch, in closing.
    let seen = Arc::new(AtomicUsize::new(0));
    let case = Case::new(&database, Input::good(20));
    let counter = seen.clone();
    let proxy = Proxy::start(database.server.port(), move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Deal::Forward
    });
    load(&case, &proxy.dsn(&database.name)).run().exits(0);
    let messages = seen.load(Ordering::SeqCst);
    // The login has a limit of its own.
    let mut silent = 0;
    for at in (14..messages).step_by(times(41, 1)) {
        let case = Case::new(&database, Input::good(20));
        let mut number = 0;
        let proxy = Proxy::start(database.server.port(), move |message| {
            number += 1;
            let login = message.side == Side::Client && matches!(message.tag, 0 | b'p')
                || message.side == Side::Server && matches!(message.tag, b'R' | b'S' | b'K');
            match number == at + 1 && !login {
                true => Deal::Blackhole,
                false => Deal::Forward,
            }
        });
        let ran = load(&case, &proxy.dsn(&database.name)).run();
        silent += usize::from(proxy.dealt());
        drop(proxy);
        case.survived(&format!("silence at message {at}"), &ran);
    }
    assert!(silent >= times(4, 200), "{silent} of {messages} messages");
}

#[test]
fn a_command_that_meets_silence_is_given_another_connection() {
    let database = Database::with("CREATE TABLE t (id int)");
    let file = Files::new();
    let rows = file.write("rows.csv", "id\n1\nx\n2\n");
    let load = database.load_once("t").args(["--import-id", "i"]);
    load.arg(rows).run().exits(3);
    for (command, exit) in [
        ("status i", 0),
        ("rejects i", 0),
        ("migrate", 0),
        ("plan --rows-per-second 1000 --row-bytes 100", 0),
        ("replay i", 3),
    ] {
        // Nothing of the login is an answer with columns.
        for silent in [1, 2, 3] {
            let (mut answers, mut dealt) = (0, false);
            let proxy = Proxy::start(database.server.port(), move |message| {
                answers += usize::from(message.side == Side::Server && message.tag == b'T');
                match answers == silent && !dealt {
                    true => {
                        dealt = true;
                        Deal::Blackhole
                    }
                    false => Deal::Forward,
                }
            });
            let command = pgrung(command).flags("--answer-timeout 700ms");
            let ran = command.dsn(&proxy.dsn(&database.name)).run();
            ran.exits(exit);
            if proxy.dealt() {
                ran.says(&["no answer", "trying again"]);
            }
            assert!(proxy.dealt() || silent > 1, "{ran}");
        }
    }
}

#[test]
fn too_many_connections_at_the_start_are_waited_out() {
    let database = Database::with(
        "CREATE TABLE t (id int);
         CREATE ROLE few LOGIN CONNECTION LIMIT 3;
         GRANT INSERT ON t TO few",
    );
    let files = Files::new();
    let file = files.write("rows.csv", "1\n2\n");
    let dsn = database.dsn().replace("user=postgres", "user=few");
    let few = || database.server.try_session("few", &database.name).unwrap();
    let all = [few(), few(), few()];
    let load = pgrung("load -t t --no-header --no-ledger")
        .dsn(&dsn)
        .arg(file);
    let mut running = load.spawn();
    running.wait_to_say("trying again");
    drop(all);
    running.wait().exits(0).says(&["53300"]);
    assert_eq!(database.count("t"), 2);
    database.run("REVOKE ALL ON t FROM few; DROP ROLE few");
}

#[test]
fn a_server_that_is_restarted_is_waited_for_and_one_that_never_was_there_is_not_for_long() {
    let database = Database::on(&Server::start(&[]));
    database.run("CREATE TABLE t (id int)");
    let files = Files::new();
    let file = files.write("rows.csv", "1\n2\n");
    let load = database.load("t").flags("--no-header").arg(&file);
    database.server.embedded().shutdown(false).unwrap();
    let mut running = load.spawn();
    running.wait_to_say("trying again");
    database.server.embedded().start_again().unwrap();
    running.wait().exits(0).says(&["cannot reach"]);
    assert_eq!(database.count("t"), 2);

    let nobody = format!("host=127.0.0.1 port={} user=me dbname=d", free_port());
    for command in ["load -t t --no-header", "status", "migrate", "replay i"] {
        let command = pgrung(command).dsn(&nobody);
        let command = match command.command().get_args().any(|word| word == "load") {
            true => command.arg(&file),
            false => command,
        };
        command
            .run()
            .exits(5)
            .says(&["cannot reach", "trying again"]);
    }
    let once = pgrung("load -t t --max-retries 0")
        .dsn(&nobody)
        .arg(&file)
        .run();
    assert!(!once.exits(5).stderr.contains("trying again"), "{once}");
}

#[test]
fn what_does_not_pass_is_not_tried_again() {
    let database = Database::with("CREATE TABLE t (id int)");
    let files = Files::new();
    let file = files.write("rows.csv", "1\n2\n");
    let wrong_password = database.loader_dsn("s3cr-wrong");
    let no_database = format!("{} dbname=nowhere", database.dsn());
    for (dsn, state) in [(wrong_password, "28P01"), (no_database, "3D000")] {
        let ran = pgrung("load -t t").dsn(&dsn).arg(&file).run();
        ran.exits(5).says(&[state]);
        assert!(!ran.stderr.contains("trying again"), "{ran}");
    }
}

#[test]
fn a_lock_that_is_in_the_way_before_the_first_row_is_not_waited_for_in_silence() {
    let database = Database::with("CREATE TABLE t (id int)");
    let lock = database.lock("t");
    let mut load = database
        .load_once("t")
        .flags("--no-header")
        .open_with("1\n");
    load.wait_to_say("perhaps it waits for a lock");
    drop(lock);
    load.end().exits(0);
    assert_eq!(database.count("t"), 1);
}
