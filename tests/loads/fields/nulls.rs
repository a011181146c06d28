//! `--null-in`: what is NULL in one column.

use crate::support::{Cmd, Database, Files, RUNGS};

const TABLE: &str = "CREATE TABLE t (id int, price text, \"a=b\" text, note text)";

/// Flags whose words may hold spaces.
fn nulls(load: Cmd, texts: &[&str]) -> Cmd {
    let flags = texts.iter().flat_map(|text| ["--null-in", text]);
    load.args(flags)
}

#[test]
fn a_column_has_its_own_nulls_and_the_others_keep_theirs_in_every_rung() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.write(
        "a.csv",
        "x,id,Price,a=b,note\nNA,1,NA,,\n,2,n/a,n a,-\n,3,,\"n a\",x=y\n,4,\"NA\",NA,\"\"\n",
    );
    for rung in RUNGS {
        database.run("TRUNCATE t");
        let load = database.load("t").arg(&path).flags(rung);
        let load = load.args(["--skip", "x", "--null", "x=y"]);
        let own = ["price=NA", "price=n/a", "\"A=B\"=n a", "note=-", "note="];
        nulls(load, &own).run().exits(0);
        let expected = ["1|~||~", "2|~|~|~", "3||n a|x=y", "4|NA|NA|"];
        assert_eq!(database.rows("t"), expected, "{rung}");
    }
    // Without a header the columns have names all the same.
    let bare = files.write("b.csv", "5,,,\n");
    let load = database.load("t").arg(&bare).flags("--no-header");
    nulls(load, &["price=x"]).run().exits(0);
    assert_eq!(database.rows("t")[4], "5||~|~");
}

#[test]
fn a_header_that_reads_as_null_is_a_header() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.write("a.csv", "id,note\n1,note\n");
    database.loads("t", &path, "--null note").exits(0);
    assert_eq!(database.rows("t"), ["1|~|~|~"]);
}

#[test]
fn what_no_field_can_mean_is_an_error_before_the_first_row() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let csv = files.write("a.csv", "id,note,x\n1,2,3\n");
    let json = files.write("a.ndjson", "{\"id\": 1}\n");
    for (path, null, words) in [
        (&csv, "nota=1", "did you mean \"note\"?"),
        (&csv, "x=1", "--null-in names \"x\", which is no field"),
        (&csv, "note", "an equals sign"),
        (&json, "id=1", "JSON lines"),
    ] {
        let load = database.load("t").arg(path).flags("--skip x");
        nulls(load, &[null]).run().exits(2).says(&[words]);
    }
    let load = database.load("t").arg(&csv).flags("--skip x");
    nulls(load, &["id=a,b"]).run().exits(2).says(&["--null-in"]);
    assert_eq!(database.count("t"), 0);
}

#[test]
fn what_is_null_belongs_to_the_import_and_to_the_replay_of_its_rejects() {
    let database =
        Database::with("CREATE TABLE t (id int, name text, price int CHECK (price > 0))");
    let files = Files::new();
    let path = files.write(
        "a.csv",
        "x,id,name,price\na,1,-,5\na,2,-,-\na,3,n,-5\na,4,-,-4\n",
    );
    let load = |null| {
        let load = database.load_once("t").flags("--import-id mine --skip x");
        nulls(load, &[null]).arg(&path).run()
    };
    load("name=-").exits(3);
    load("price=-")
        .exits(6)
        .says(&["null_in was [[\"name\",\"-\"]]"]);
    assert_eq!(database.rows("t"), ["1|~|5"]);
    database.run("ALTER TABLE t DROP CONSTRAINT t_price_check");
    database.pgrung("replay mine").run().exits(3);
    assert_eq!(database.rows("t"), ["1|~|5", "3|n|-5", "4|~|-4"]);
}
