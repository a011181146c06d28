//! What an import's maps were is part of it: it goes on with them, and with no others.

use std::time::Duration;

use crate::support::{Cmd, Database, Files, Sink, names_in, nothing_in, rows, wait_until};

const TABLE: &str = "CREATE TABLE t (id int, n numeric(9,2), place text)";
const COMMA: &str = "n = replace(:value, ',', '.')";

fn csv(count: u32) -> String {
    (1..=count).fold("id,n\n".to_owned(), |text, id| {
        format!("{text}{id},\"{id},5\"\n")
    })
}

fn load(database: &Database, file: &str, maps: &[&str]) -> Cmd {
    let load = database
        .load_once("t")
        .arg(file)
        .flags("--batch-rows 10 -j 1");
    maps.iter()
        .fold(load, |load, map| load.args(["--map", map]))
}

#[test]
fn a_file_is_known_by_its_maps_as_well() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let file = files.write("f.csv", csv(100));
    let place = "place = :record || '@' || :line";
    load(&database, &file, &[COMMA, place])
        .env("PGRUNG_ABORT_AT", "after commit:4")
        .run()
        .aborted();
    let other = "n = replace(:value, ',', '.')::numeric * 100";
    for maps in [&[COMMA][..], &[other, place], &[]] {
        let ran = load(&database, &file, maps).run();
        ran.exits(6).says(&["its --map was", "--restart"]);
    }
    load(&database, &file, &[COMMA, place])
        .run()
        .exits(0)
        .tells("60 inserted + 40 already loaded");
    load(&database, &file, &[COMMA, place])
        .run()
        .exits(0)
        .tells("0 inserted + 100 already loaded");
    assert_eq!(database.one("SELECT count(*), count(DISTINCT id), sum(n), bool_and(place = id || '@' || id + 1) FROM t"), "100|100|5100.00|t");
    load(&database, &file, &[other])
        .run()
        .exits(6)
        .says(&["its --map was"]);
    load(&database, &file, &[other])
        .arg("--restart")
        .run()
        .exits(0)
        .tells("100 read = 100 inserted");
    assert_eq!(database.one("SELECT sum(n) FROM t"), "515100.00");
    // Loaded without maps first.
    let plain = files.write("plain.csv", "id,n\n7,1.5\n");
    load(&database, &plain, &[]).run().exits(0);
    load(&database, &plain, &["n = '0' || :value"])
        .run()
        .exits(6)
        .says(&["its --map was none"]);
}

#[test]
fn rejects_are_loaded_again_by_their_maps() {
    let (database, files) = (
        Database::with(&format!(
            "{TABLE}; ALTER TABLE t ADD CHECK (n < 50); CREATE TABLE rates (r numeric); INSERT INTO rates VALUES (1)"
        )),
        Files::new(),
    );
    let file = files.write("f.csv", csv(60) + "x,\"1,5\"\n");
    let rate = "n = (SELECT replace(:value, ',', '.')::numeric * r FROM rates)";
    load(&database, &file, &[rate, "id = ltrim(:value, 'x')"])
        .args(["--import-id", "r"])
        .run()
        .exits(3);
    assert_eq!(
        database.lines("SELECT column_name, count(*) FROM pgrung.rejects GROUP BY 1 ORDER BY 1"),
        ["id|1", "~|11"]
    );
    database.run("UPDATE rates SET r = 0.1");
    let replay = database.pgrung("replay r");
    replay
        .run()
        .exits(3)
        .tells("11 rejects loaded, 1 still bad");
    assert_eq!(
        database.one("SELECT count(*), count(DISTINCT id), max(n) FILTER (WHERE id > 49) FROM t"),
        "60|60|6.05"
    );
}

#[test]
fn rejects_that_no_longer_know_their_place_are_exported() {
    let (database, files) = (Database::with(TABLE), Files::new());
    for map in ["place = :source", "place = :record", "place = :line"] {
        let file = files.write("f.csv", format!("{}x,1\n", csv(5)));
        load(&database, &file, &[COMMA, map])
            .args(["--import-id", map, "--restart"])
            .run()
            .exits(3);
        let replay = database.pgrung("replay").arg(map).run();
        replay.says(&["its --map asks where records came from", "--export FILE"]);
        assert_eq!(replay.code, Some(1), "{replay}");
        let path = files.path("bad.csv").display().to_string();
        database
            .pgrung("rejects")
            .args([map, "--export", &path])
            .run();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "\"id\",\"n\"\nx,1\n"
        );
    }
}

#[test]
fn batches_left_on_disk_are_loaded_by_their_maps() {
    let (database, files) = (Sink::new(), Files::new());
    let dir = files.path("spill");
    database.run("ALTER TABLE t ADD place text");
    let maps = [
        "payload = :value || ' mapped'",
        "place = :source || ':' || :record || '@' || :line",
    ];
    let spilling = || {
        let load = database
            .load()
            .spill_to(&dir)
            .flags("-j 1 --queue 1 --batch-rows 20 --max-wait 60s --columns id,sent_us,payload");
        maps.iter()
            .fold(load, |load, map| load.args(["--map", map]))
    };
    let mut stream = spilling().open();
    stream.send(rows(1, 20));
    wait_until("the first batch", || database.count() == 20);
    let lock = database.lock("t");
    stream.send(rows(21, 980));
    stream.wait_for("pgrung_spill_batches", 46.0);
    std::thread::sleep(Duration::from_millis(300));
    stream.kill();
    drop(lock);
    wait_until("the server notices", || database.loaders("true") == 0);
    assert!(!names_in(&dir).is_empty());
    // The next load has other maps, and those left behind keep theirs.
    let next = database
        .load()
        .spill_to(&dir)
        .flags("--columns id,sent_us,payload")
        .args(["--map", "place = 'next'"]);
    next.run_on(rows(1_001, 10))
        .exits(0)
        .says(&["left on disk is loaded"]);
    nothing_in(&dir);
    let found = database.one("SELECT count(*) - count(DISTINCT id), count(*) FILTER (WHERE id BETWEEN 61 AND 1000), count(*) FILTER (WHERE place = 'next'),
        bool_and(payload LIKE '%mapped' AND place = 'stdin:' || id || '@' || id) FILTER (WHERE id <= 1000) FROM t");
    assert_eq!(found, "0|940|10|t");
}
