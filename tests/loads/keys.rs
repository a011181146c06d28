//! Keys of JSON lines and names in headers: which column a name means.

use crate::support::{Database, Files};

/// Columns that differ in case only, and one that a load may leave to its default.
const TWINS: &str = "CREATE TABLE t (n int, id int, \"ID\" int DEFAULT 7)";

#[test]
fn a_key_means_the_column_of_that_very_name_and_never_its_twin() {
    let database = Database::with(TWINS);
    let files = Files::new();
    // "ID" has a default and is in none of the first lines, so it is no column of this load.
    let mut text: String = (0..20_000)
        .map(|n| format!("{{\"n\": {n}, \"id\": 1}}\n"))
        .collect();
    text += "{\"n\": -1, \"ID\": 2}\n{\"n\": -2, \"Id\": 3}\n{\"N\": -3, \"id\": 4}\n";
    let file = files.write("a.ndjson", text);
    let ran = database.loads("t", &file, "--progress none");
    ran.exits(3)
        .tells("key \"ID\" is no column of this load")
        .tells("key \"Id\" is no column of this load");
    assert_eq!(ran.rows("rejected"), 2);
    assert_eq!(database.count("t WHERE id <> 1 OR \"ID\" <> 7"), 1);

    let file = files.write("b.ndjson", "{\"n\": -4, \"id\": 5, \"ID\": 6}\n");
    database.loads("t", &file, "").exits(0);
    assert_eq!(database.count("t WHERE id = 5 AND \"ID\" = 6"), 1);
}

#[test]
fn a_line_that_gives_a_column_two_values_is_a_reject() {
    let database = Database::with("CREATE TABLE t (id int, name text)");
    let files = Files::new();
    let file = files.write(
        "a.ndjson",
        "{\"id\": 1, \"name\": \"x\"}\n{\"id\": 2, \"id\": 3}\n{\"id\": 4, \"ID\": 5}\n{\"Id\": null, \"id\": 6}\n{\"ID\": 7}\n",
    );
    let ran = database.loads("t", &file, "");
    ran.exits(3)
        .tells("2 x 22P04 in \"id\"")
        .tells("key \"ID\" gives its column a second value");
    assert_eq!(database.rows("t").join(" "), "1|x 7|~");
}

#[test]
fn a_header_means_columns_as_keys_do() {
    let database = Database::with(TWINS);
    let files = Files::new();
    let file = files.write("a.csv", "ID,id,N\n1,2,3\n");
    database.loads("t", &file, "").exits(0);
    assert_eq!(database.rows("t").join(" "), "3|2|1");
    for (header, words) in [
        ("n,Id", "has no column \"Id\""),
        ("n,N", "names column \"n\" twice"),
    ] {
        let file = files.write("b.csv", format!("{header}\n1,2\n"));
        database.loads("t", &file, "").exits(2).says(&[words]);
    }
}
