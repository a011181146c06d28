//! Which of two records is newer, by the order that the column's type has.

use crate::support::Database;

/// A value, a greater one, and what they are of.
const ORDERS: [(&str, &str, &str); 8] = [
    ("int", "9", "10"),
    ("text", "10", "9"),
    ("varchar(3)", "a", "b"),
    ("timestamptz", "2026-01-01 10:00+01", "2026-01-01 09:30+00"),
    ("mood", "sad", "happy"),
    ("int[]", "\"{1,9}\"", "\"{1,10}\""),
    ("int4range", "\"[1,2)\"", "\"[1,3)\""),
    ("positive", "9", "10"),
];

#[test]
fn a_greater_value_wins_whatever_the_type_and_the_search_path() {
    for flags in ["--merge end", "--merge batch --batch-rows 1"] {
        for (ty, less, greater) in ORDERS {
            let database = Database::with(&format!(
                "CREATE TYPE mood AS ENUM ('sad', 'happy');
                 CREATE DOMAIN positive AS int CHECK (VALUE > 0);
                 CREATE TABLE t (id int PRIMARY KEY, name text, at {ty});
                 CREATE FUNCTION wrong(int, int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 OPERATOR(pg_catalog.>) $2';
                 CREATE OPERATOR public.< (FUNCTION = wrong, LEFTARG = int, RIGHTARG = int);
                 DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$"
            ));
            let load = database
                .load_once("t")
                .flags("--mode upsert --newer at")
                .flags(flags);
            let rows = |first: &str, second: &str| {
                format!(
                    "id,name,at\n1,a,{first}\n1,b,{second}\n2,a,{second}\n2,b,{first}\n3,a,\n3,b,{first}\n3,c,\n"
                )
            };
            let ran = load.clone().run_on(rows(less, greater));
            ran.exits(0);
            let names = "SELECT string_agg(name, '' ORDER BY id) FROM t";
            assert_eq!(database.one(names), "bab", "{ty} {flags}: {ran}");
            // Late data does no harm; what is as new does not win either.
            let ran = load.run_on(format!(
                "id,name,at\n1,late,{less}\n2,same,{greater}\n3,new,{greater}\n"
            ));
            ran.exits(0);
            assert_eq!(database.one(names), "banew", "{ty} {flags}: {ran}");
            assert_eq!(
                (ran.rows("updated"), ran.rows("superseded")),
                (1, 2),
                "{ty} {flags}: {ran}"
            );
        }
    }
}

#[test]
fn a_type_without_an_order_is_refused_before_the_first_row() {
    let database = Database::with("CREATE TABLE t (id int PRIMARY KEY, at json, place point)");
    for column in ["at", "place"] {
        let ran = database
            .load_once("t")
            .args(["--mode", "upsert", "--newer", column])
            .run_on("id,at,place\n1,{},\n");
        ran.exits(2).says(&["have no order"]);
    }
    assert_eq!(database.count("t"), 0);
}
