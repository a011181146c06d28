//! Expressions that are none, or that the server does not take, are refused before the first row.

use crate::support::{Database, Files};

const TABLE: &str = "CREATE TABLE t (id int, n numeric(6,2), v varchar(3), a int[], sm smallint,
                                     g int GENERATED ALWAYS AS (id + 1) STORED)";

/// Each with what is said of it.
const REFUSED: [(&str, &[&str]); 27] = [
    (
        "nope = 1",
        &["--map nope: \"public\".\"t\" has no such column"],
    ),
    ("vv = 1", &["--map vv: ", "did you mean \"v\"?"]),
    ("g = 1", &["column \"g\" is generated"]),
    (
        "v = :vlaue",
        &["--map v: :vlaue is unknown, did you mean :value?"],
    ),
    (
        "sm = :value",
        &["--map sm: the input has no field \"sm\" that :value could be"],
    ),
    (
        "v = :field(\"Xx\")",
        &[
            "--map v: the input has no field \"Xx\"",
            "did you mean \"x\"?",
        ],
    ),
    (
        "v = :field(x)",
        &["--map v: :field takes the name of a field in double quotes"],
    ),
    ("v = 'abc", &["--map v: a string does not end"]),
    (
        "v = $q$abc",
        &["--map v: a dollar-quoted string does not end"],
    ),
    ("v = 1 /* /* */", &["--map v: a comment does not end"]),
    ("v", &["column = expression is needed"]),
    ("v = ", &["column = expression is needed"]),
    ("v = -- nothing", &["--map v: ERROR 42601"]),
    (
        "v = :value; DROP TABLE t",
        &["--map v: ERROR 42601", "\";\""],
    ),
    ("v = 1) , (2", &["--map v: ERROR 42601"]),
    (
        "v = x",
        &["--map v: ERROR 42703", "column \"x\" does not exist"],
    ),
    (
        "v = nofunc(:value)",
        &["--map v: ERROR 42883", "nofunc(text)"],
    ),
    ("v = DEFAULT", &["--map v: ERROR 42601"]),
    ("v = pgrung_row.*", &["--map v: one value is needed"]),
    (
        "a = string_to_array(:value, ';')",
        &["--map a: ERROR 42804", "column \"a\" is of type integer[]"],
    ),
    ("n = :value::date", &["--map n: ERROR 42804"]),
    ("sm = 70000", &["--map sm: ERROR 22003"]),
    ("sm = 'abc'", &["--map sm: ERROR 22P02"]),
    ("n = sum(:value::int)", &["--map n: ERROR 42803"]),
    ("n = row_number() OVER ()", &["--map n: ERROR 42P20"]),
    ("n = generate_series(1, 2)", &["--map n: ERROR 0A000"]),
    ("v = pg_sleep(0)", &["--map v: ERROR 42P16"]),
];

#[test]
fn an_expression_that_is_none_is_refused_with_its_column_before_the_first_row() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let file = files.write("f.csv", "id,n,v,a,x\n1,2,3,{},4\n");
    for (map, words) in REFUSED {
        // Other maps are in order.
        let mut load = database.load_once("t").arg(&file).args(["--map", map]);
        load = load.args(["--map", "id = :value::int * length(:field(\"x\"))"]);
        let ran = load.run();
        ran.exits(2).says(words);
        assert_eq!(database.count("t"), 0, "{map}");
    }
    let twice = database.load_once("t").arg(&file);
    twice
        .args(["--map", "id = 1", "--map", "ID = :field(\"x\")"])
        .run()
        .exits(2)
        .says(&["--map id: the column is mapped twice"]);
    assert_eq!(
        database.number("SELECT count(*) FROM pg_class WHERE relname = 'imports'"),
        0,
        "nothing was noted"
    );
}

/// What passes is asked again, and is no wrong usage.
#[test]
fn a_fault_of_the_server_is_not_the_expression_s() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let file = files.write("f.csv", "id\n1\n");
    for (state, code) in [("40001", 1), ("P0001", 2)] {
        database.run(&format!(
            "CREATE OR REPLACE FUNCTION fails() RETURNS int IMMUTABLE LANGUAGE plpgsql
             AS $$BEGIN RAISE SQLSTATE '{state}'; END$$"
        ));
        let load = database.load_once("t").arg(&file).flags("--max-retries 1");
        let ran = load.args(["--map", "id = fails()"]).run();
        ran.exits(code).says(&[state]);
    }
}

#[test]
fn fields_of_no_use_or_of_one_name_are_refused() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let load = |text: &str| {
        let file = files.write("f.csv", text);
        database
            .load_once("t")
            .arg(file)
            .args(["--map", "id = :value::int"])
            .run()
    };
    load("id,other\n1,2\n")
        .exits(2)
        .says(&["no column \"other\""]);
    load("id,id\n1,2\n")
        .exits(2)
        .says(&["names column \"id\" twice"]);
}

#[test]
fn a_map_needs_a_transaction_and_temporary_tables() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let file = files.write("f.csv", "id\n1\n");
    let load = |flags: &str| {
        database
            .load_once("t")
            .arg(&file)
            .flags(flags)
            .args(["--map", "id = :value"])
    };
    load("--strategy insert --commit row --no-ledger")
        .run()
        .exits(2)
        .says(&["--map needs a transaction"]);
    database.run(&format!(
        "REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC; GRANT INSERT, SELECT ON t TO loader",
        database.name
    ));
    let refused = load("--no-ledger")
        .dsn(&database.loader_dsn(crate::support::PASSWORD))
        .run();
    refused
        .exits(1)
        .says(&["--map: ERROR 42501: permission denied to create temporary tables"]);
    assert_eq!(database.count("t"), 0);
}
