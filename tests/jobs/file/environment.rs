//! Variables of the environment in job files, which may be secret.

use super::run;
use crate::support::{Database, Files, PASSWORD};

fn load(keys: &str) -> String {
    format!("[[load]]\nname = \"t\"\ninput = \"a.csv\"\n{keys}\n")
}

#[test]
fn variables_stand_for_strings_and_have_defaults() {
    let (database, files) = (
        Database::with("CREATE TABLE t (id int PRIMARY KEY)"),
        Files::new(),
    );
    files.write("a.csv", "id\n1\n");
    let keys = "table = \"${TABLE}\"\nmode = \"${MODE:-upsert}\"\nkey = [\"${KEY}\"]\nworkers = \"${WORKERS}\"
        after = [\"DO $$ BEGIN INSERT INTO t VALUES (${NUMBER}); END $$\", \"SELECT '$${TABLE}'\"]";
    let lines = format!("[connection]\ndsn = \"${{SERVER}}\"\n{}", load(keys));
    let run = run(&database, &files, &lines).env("SERVER", database.dsn());
    let run = run.env("DATABASE_URL", "host=nosuch");
    let run = run
        .env("TABLE", "t")
        .env("KEY", "id")
        .env("WORKERS", "2")
        .env("NUMBER", "7");
    let ran = run.run();
    ran.exits(0);
    assert_eq!(ran.summary()["loads"][0]["mode"], "upsert");
    assert_eq!(database.rows("t"), ["1", "7"]);
}

#[test]
fn no_error_shows_what_came_from_the_environment() {
    let (database, files) = (Database::with("CREATE TABLE t (id int)"), Files::new());
    files.write("a.csv", "id\n1\n");
    for (keys, code, words) in [
        // `keeps_the_rules` looks for the password in all that is said.
        (
            "before = 'SELECT * FROM \"${SECRET}\"'",
            1,
            "relation \"${SECRET}\" does not exist",
        ),
        ("columns = \"${SECRET}\"", 2, "${SECRET}"),
        ("rejects = \"${SECRET}\"", 2, "no such directory"),
        ("after = \"@${SECRET}\"", 2, "@"),
        (
            "batch_bytes = \"${SECRET}\"",
            2,
            "batch_bytes = \"${SECRET}\"",
        ),
        ("delimiter = \"${SECRET}\"", 2, "delimiter = \"${SECRET}\""),
        ("max_wait = \"5${SECRET}\"", 2, "max_wait = \"5${SECRET}\""),
    ] {
        let run = run(&database, &files, &load(&format!("table = \"t\"\n{keys}")));
        let ran = run.env("SECRET", PASSWORD).run();
        ran.exits(code).says(&[words]);
    }
}
