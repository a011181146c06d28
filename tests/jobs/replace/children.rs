//! Rows that others point to: they survive when they come again, and when they do not, it is as the
//! foreign key says.

use std::sync::Arc;

use super::catalogue::catalogue;
use crate::support::{Database, Ran};

const MODES: [&str; 2] = ["replace", "sync"];

/// Parents 1 to 4; children point to 1, 2 and 3, and go or stay by `action`.
fn family(action: &str) -> Arc<Database> {
    Database::with(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, note text);
         INSERT INTO t SELECT n, 'old' FROM generate_series(1, 4) n;
         CREATE TABLE children (id int DEFAULT 4 REFERENCES t {action}, note text);
         INSERT INTO children VALUES (1, 'of 1'), (2, 'of 2'), (2, 'of 2 too'), (3, 'of 3'), (NULL, 'of none')"
    ))
}

fn load(database: &Database, mode: &str, input: &str) -> Ran {
    database.load_once("t").args(["--mode", mode]).run_on(input)
}

#[test]
fn rows_that_come_again_keep_their_children() {
    for mode in MODES {
        for action in [
            "",
            "ON DELETE CASCADE",
            "ON DELETE SET NULL",
            "ON DELETE SET DEFAULT",
            "ON DELETE RESTRICT",
            "DEFERRABLE INITIALLY DEFERRED",
            "ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE",
        ] {
            let database = family(action);
            let children = "SELECT tableoid, ctid, xmin, c.* FROM children c ORDER BY ctid";
            let before = database.lines(children);
            let ran = load(&database, mode, "id,note\n5,new\n3,new\n1,old\n2,new\n");
            ran.exits(0);
            assert_eq!(ran.rows("deleted"), 1, "{ran}");
            assert_eq!(database.rows("t"), ["1|old", "2|new", "3|new", "5|new"]);
            assert_eq!(database.lines(children), before, "{mode} {action}");
        }
    }
}

#[test]
fn rows_that_do_not_come_again_leave_their_children_as_the_key_says() {
    for mode in MODES {
        for (action, left) in [
            ("ON DELETE CASCADE", vec!["1|of 1", "~|of none"]),
            (
                "ON DELETE SET NULL",
                vec!["1|of 1", "~|of 2", "~|of 2 too", "~|of 3", "~|of none"],
            ),
            (
                "ON DELETE SET DEFAULT",
                vec!["1|of 1", "4|of 2", "4|of 2 too", "4|of 3", "~|of none"],
            ),
        ] {
            let database = family(action);
            load(&database, mode, "id,note\n4,new\n1,new\n").exits(0);
            assert_eq!(database.rows("t"), ["1|new", "4|new"]);
            let found = database.lines("SELECT * FROM children ORDER BY id, note");
            assert_eq!(found, left, "{mode} {action}");
        }
    }
}

#[test]
fn a_key_that_refuses_leaves_the_table_as_it_was() {
    for mode in MODES {
        for action in [
            "",
            "ON DELETE RESTRICT",
            "DEFERRABLE",
            "DEFERRABLE INITIALLY DEFERRED",
        ] {
            let database = family(action);
            let tables = "SELECT ctid, xmin, t::text FROM t UNION ALL SELECT ctid, xmin, c::text FROM children c ORDER BY 1, 3";
            let before = database.lines(tables);
            let input = "id,note\n1,new\n4,new\n5,new\n";
            let ran = load(&database, mode, input);
            assert_eq!(ran.rows("rejected"), 0, "no row is to blame: {ran}");
            // A code that begins with 23: PostgreSQL 18 has one of its own for RESTRICT.
            ran.exits(1)
                .says(&["ERROR 23", "children_id_fkey", "\"public\".\"t\""]);
            assert_eq!(database.lines(tables), before, "{mode} {action}: {ran}");
            // It is gone on with once that is mended.
            let known = catalogue(&database);
            database.run("DELETE FROM children WHERE id IN (2, 3)");
            load(&database, mode, input).exits(0);
            assert_eq!(database.rows("t"), ["1|new", "4|new", "5|new"]);
            assert_ne!(catalogue(&database), known, "the staging table is gone");
            assert_eq!(database.number("SELECT count(*) FROM pgrung.stagings"), 0);
        }
    }
}

#[test]
fn a_key_that_refuses_is_not_hidden_by_a_bad_row() {
    let database = family("DEFERRABLE INITIALLY DEFERRED");
    database.run("CREATE UNIQUE INDEX ON t (note) WHERE note = 'once'");
    let before = database.rows("t");
    let ran = load(&database, "sync", "id,note\n1,new\n5,once\n6,once\n");
    ran.exits(1)
        .says(&["cannot be deleted", "children_id_fkey"]);
    assert_eq!(database.rows("t"), before);
}

#[test]
fn a_row_is_to_blame_for_what_its_trigger_does_elsewhere() {
    let database = family("");
    database.run(
        "CREATE TABLE known (note text PRIMARY KEY); INSERT INTO known VALUES ('new');
         CREATE TABLE seen (note text REFERENCES known);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO seen VALUES (NEW.note); RETURN NULL; END';
         CREATE TRIGGER see AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION see()",
    );
    let ran = load(
        &database,
        "replace",
        "id,note\n1,a\n2,b\n3,c\n5,new\n6,unknown\n",
    );
    ran.exits(3);
    assert_eq!(ran.rows("rejected"), 1, "{ran}");
    assert_eq!(database.rows("t"), ["1|a", "2|b", "3|c", "5|new"]);
}
