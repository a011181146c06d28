//! What a server runs out of, and what it will not do for a while: real ones.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::kills::long_input;
use crate::support::{
    Case, Cmd, Database, Deal, Files, Input, PASSWORD, Proxy, Running, STRATEGIES, Server, Session,
    seeded, times, wait_until,
};

/// A load of many small batches that has committed some of them.
fn in_mid_load(load: &Cmd, case: &Case, batches: i64) -> Running {
    case.slow_down();
    let mut running = load.spawn();
    case.in_mid_load(&mut running, batches);
    running
}

/// A file system of its own, small enough to fill.
struct SmallDisk(Files);

impl SmallDisk {
    /// Mounted for the owner of `owned`.
    fn mount(bytes: usize, owned: &Path) -> Self {
        let owner = std::fs::metadata(owned).unwrap();
        let files = Files::new();
        let (uid, gid) = (owner.uid(), owner.gid());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={bytes},uid={uid},gid={gid},mode=0700"))
            .arg("pgrung-test")
            .arg(files.dir())
            .status();
        assert!(mounted.unwrap().success(), "mount");
        SmallDisk(files)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.dir()).status();
    }
}

#[test]
#[ignore = "needs the right to mount a file system; `make test` runs it where it is there"]
fn a_full_disk_is_waited_out() {
    let server = Server::start(&[]);
    let data = server.embedded().data_dir().to_owned();
    let disk = SmallDisk::mount(6 << 20, &data);
    let place = disk.0.path("space");
    std::fs::create_dir(&place).unwrap();
    let owner = std::fs::metadata(&data).unwrap();
    std::os::unix::fs::chown(&place, Some(owner.uid()), Some(owner.gid())).unwrap();
    server.session("postgres").run(&format!(
        "CREATE TABLESPACE small LOCATION '{}'",
        place.display()
    ));
    let mut random = seeded("disk full");
    for round in 0..times(1, 20) {
        let database = Database::on(&server);
        let strategy = STRATEGIES[round % STRATEGIES.len()];
        let case = Case::new(&database, long_input(3000, &mut random));
        database.run(&format!("ALTER TABLE {} SET TABLESPACE small", case.table));
        // Room for some of the rows; nobody knows how many.
        let ballast = disk.0.path("ballast");
        let room = 8192 * random.usize(4..20);
        let free = free_bytes(disk.0.dir()).saturating_sub(room);
        std::fs::write(&ballast, vec![0; free]).unwrap();
        let load = case.load_by(strategy).flags("-j 2 --batch-rows 50");
        let mut running = load.spawn();
        running.wait_to_say("53100");
        std::fs::remove_file(&ballast).unwrap();
        let ran = running.wait();
        ran.exits(3).says(&["53100"]);
        case.survived(&format!("disk full, {strategy}"), &ran);
        database.run(&format!("DROP TABLE {}; CHECKPOINT", case.table));
    }
}

/// The same without the right to mount: whoever says 53100, it is waited out.
#[test]
fn a_server_that_says_its_disk_is_full_is_waited_for() {
    let mut random = seeded("says disk full");
    let database = Database::new();
    for strategy in STRATEGIES {
        let case = Case::new(&database, long_input(600, &mut random));
        let load = case.load_by(strategy).flags("-j 2 --batch-rows 20");
        let table = &case.table;
        database.run(&format!(
            "CREATE FUNCTION full_{table}() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN IF (SELECT count(*) FROM {table}) > 100 THEN
                 RAISE 'no space left' USING ERRCODE = '53100'; END IF; RETURN NULL; END$$;
             CREATE TRIGGER full_disk AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION full_{table}()"
        ));
        let mut running = load.spawn();
        running.wait_to_say("53100");
        database.run(&format!("DROP TRIGGER full_disk ON {table}"));
        let ran = running.wait();
        ran.exits(3).says(&["53100"]);
        case.survived(&format!("disk said to be full, {strategy}"), &ran);
    }
}

fn free_bytes(path: &Path) -> usize {
    let status = nix::sys::statvfs::statvfs(path).unwrap();
    (status.blocks_available() * status.fragment_size()) as usize
}

/// A second table that a trigger of the first touches, so that somebody else can be in the way.
fn with_gate(case: &Case, timeout: &str) {
    let table = &case.table;
    case.database.run(&format!(
        "CREATE TABLE gate_{table} (g int PRIMARY KEY);
         INSERT INTO gate_{table} VALUES (1);
         CREATE FUNCTION pass_{table}() RETURNS trigger LANGUAGE plpgsql
         SET lock_timeout = '{timeout}' AS
         $$BEGIN PERFORM g FROM gate_{table} FOR UPDATE; RETURN NULL; END$$;
         CREATE TRIGGER pass AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION pass_{table}();"
    ));
}

#[test]
fn a_lock_timeout_is_survived() {
    let mut random = seeded("lock timeout");
    let database = Database::new();
    for round in 0..times(1, 20) {
        let case = Case::new(&database, long_input(1500, &mut random));
        with_gate(&case, "100ms");
        let strategy = STRATEGIES[round % STRATEGIES.len()];
        let load = case.load_by(strategy).flags("-j 2 --batch-rows 20");
        let mut running = in_mid_load(&load, &case, random.i64(1..10));
        let holder = database.session();
        holder.run(&format!(
            "BEGIN; SELECT g FROM gate_{} FOR UPDATE",
            case.table
        ));
        running.wait_to_say("55P03");
        holder.run("COMMIT");
        let ran = running.wait();
        ran.exits(3).says(&["55P03"]);
        case.survived(&format!("lock timeout, {strategy}"), &ran);
    }
}

/// The lock is on the target itself, so that COPY is refused before it starts.
#[test]
fn a_lock_on_the_target_is_survived() {
    let mut random = seeded("lock on the target");
    let database = Database::new();
    for strategy in ["copy", "insert"] {
        let case = Case::new(&database, long_input(1500, &mut random));
        let load = case
            .load_by(strategy)
            .flags("-j 2 --batch-rows 20 --answer-timeout 500ms");
        let mut running = in_mid_load(&load, &case, 3);
        let holder = database.session();
        holder.run(&format!("BEGIN; LOCK TABLE {} IN SHARE MODE", case.table));
        running.wait_to_say("trying again");
        holder.run("COMMIT");
        let ran = running.wait();
        ran.exits(3);
        case.survived(&format!("lock on the target, {strategy}"), &ran);
    }
}

/// Cancels the statement of a loader that waits for a lock on its table.
pub fn cancel_copy_before_it_starts(case: &Case, running: &mut Running) {
    let database = &case.database;
    wait_until("a few batches", || running.has_ended() || case.spans() >= 3);
    assert!(!running.has_ended(), "too soon: {}", running.stderr());
    let holder = database.session();
    holder.run(&format!("BEGIN; LOCK TABLE {} IN SHARE MODE", case.table));
    wait_until("a cancelled statement", || {
        running.has_ended()
            || database.number(
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'pgrung' AND wait_event_type = 'Lock'",
            ) > 0
    });
    running.wait_to_say("57014");
    holder.run("COMMIT");
}

#[test]
fn a_statement_cancelled_before_it_starts_is_tried_again() {
    let mut random = seeded("cancel");
    let database = Database::new();
    for round in 0..times(5, 20) {
        let case = Case::new(&database, long_input(1000, &mut random));
        case.slow_down();
        let strategy = STRATEGIES[round % STRATEGIES.len()];
        let load = case.load_by(strategy).flags("-j 1 --batch-rows 10");
        let mut running = load.spawn();
        cancel_copy_before_it_starts(&case, &mut running);
        let ran = running.wait();
        ran.exits(3).says(&["57014"]);
        case.survived(&format!("cancelled, {strategy}"), &ran);
    }
}

#[test]
fn a_deadlock_is_survived() {
    let mut random = seeded("deadlock");
    let server = Server::start(&[("deadlock_timeout", "50ms")]);
    for round in 0..times(1, 20) {
        let database = Database::on(&server);
        let case = Case::new(&database, long_input(1500, &mut random));
        let table = &case.table;
        with_gate(&case, "0");
        let strategy = STRATEGIES[round % STRATEGIES.len()];
        let load = case.load_by(strategy).flags("-j 2 --batch-rows 20");
        let mut running = in_mid_load(&load, &case, random.i64(1..10));
        // We hold the gate and want the table; the workers hold the table and want the gate.
        wait_until("a deadlock", || {
            let holder = database.session();
            holder.run(&format!(
                "BEGIN; SET LOCAL deadlock_timeout = '10s'; SELECT g FROM gate_{table} FOR UPDATE"
            ));
            wait_until("a worker at the gate", || {
                running.has_ended() || database.waits_for_lock()
            });
            let _ = holder.try_run(&format!(
                "LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE; COMMIT"
            ));
            running.has_ended() || running.stderr().contains("40P01")
        });
        let ran = running.wait();
        ran.exits(3).says(&["40P01"]);
        case.survived(&format!("deadlock, {strategy}"), &ran);
    }
}

#[test]
fn a_server_without_a_free_connection_is_waited_for() {
    let mut random = seeded("max_connections");
    let server = Server::start(&[
        ("max_connections", "10"),
        ("superuser_reserved_connections", "3"),
    ]);
    let admin = server.session("postgres");
    admin.run(&format!("CREATE ROLE loader LOGIN PASSWORD '{PASSWORD}'"));
    for _ in 0..times(1, 20) {
        let database = Database::on(&server);
        let case = Case::new(&database, long_input(1500, &mut random));
        database.run(&format!(
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO loader; GRANT ALL ON DATABASE {} TO loader",
            database.name
        ));
        let load = case
            .load()
            .dsn(&database.loader_dsn(PASSWORD))
            .flags("-j 2 --batch-rows 20 --max-retries 1000");
        let mut running = in_mid_load(&load, &case, random.i64(1..10));
        // The workers lose their places to others, who are quicker.
        let mut others: Vec<Session> = Vec::new();
        wait_until("too many connections", || {
            admin.run(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = '{}' AND application_name = 'pgrung'",
                database.name
            ));
            while let Some(other) = server.try_session("loader", &database.name) {
                others.push(other);
            }
            running.has_ended() || running.stderr().contains("53300")
        });
        drop(others);
        let ran = running.wait();
        ran.exits(3).says(&["53300"]);
        case.survived("max_connections", &ran);
    }
}

#[test]
fn a_read_only_database_is_refused_at_the_start_and_loaded_later() {
    for _ in 0..times(1, 20) {
        let database = Database::new();
        let case = Case::new(&database, Input::good(50));
        database.run(&format!(
            "ALTER DATABASE {} SET default_transaction_read_only = on",
            database.name
        ));
        let ran = case.load().run();
        ran.exits(1).says(&["25006"]);
        let writer = database.session();
        writer.run("SET default_transaction_read_only = off");
        assert_eq!(case.rows(), 0);
        writer.run(&format!(
            "ALTER DATABASE {} SET default_transaction_read_only = off",
            database.name
        ));
        let load = case.load();
        case.recover("read-only at the start", ran, &load);
    }
}

/// A copy of the primary in `dir`, read-only until it is promoted.
fn standby_of(primary: &Server, dir: &Path) -> Arc<Server> {
    let (data, socket) = {
        let mut embedded = primary.embedded();
        embedded.shutdown(false).unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(embedded.data_dir())
            .arg(dir)
            .status()
            .unwrap();
        assert!(copied.success());
        embedded.start_again().unwrap();
        (
            dir.join(embedded.data_dir().file_name().unwrap()),
            embedded.socket_dir().to_owned(),
        )
    };
    std::fs::write(data.join("standby.signal"), "").unwrap();
    let conf = data.join("postgresql.auto.conf");
    let mut text = std::fs::read_to_string(&conf).unwrap();
    text += &format!(
        "primary_conninfo = 'host={} port={} user=postgres'\n",
        socket.display(),
        primary.port()
    );
    std::fs::write(&conf, text).unwrap();
    Server::start_in(&data)
}

/// The primary dies, its standby answers read-only for a while and is then promoted. It may lack
/// the last commits: then the load must say so, and the next run loads them.
#[test]
fn a_failover_to_a_standby_that_is_read_only_at_first_loses_nothing() {
    let mut random = seeded("failover");
    for _ in 0..times(1, 10) {
        let primary = Server::start(&[("wal_level", "replica"), ("max_wal_senders", "4")]);
        let database = Database::on(&primary);
        let mut case = Case::new(&database, long_input(4000, &mut random));
        let dir = Files::new();
        let standby = standby_of(&primary, dir.dir());
        let proxy = Proxy::start(primary.port(), |_| Deal::Forward);
        let load = case
            .load()
            .dsn(&proxy.dsn(&database.name))
            .flags("-j 2 --batch-rows 20 --max-retries 1000");
        let mut running = in_mid_load(&load, &case, random.i64(3..20));
        primary.embedded().shutdown(true).unwrap();
        proxy.lead_to(standby.port());
        running.wait_to_say("25006");
        standby.session("postgres").run("SELECT pg_promote()");
        let ran = running.wait();
        assert!(ran.stderr.contains("25006"), "{ran}");
        case.database = Database::named(&standby, &database.name);
        let load = case.load();
        case.recover("failover", ran, &load);
    }
}
