//! What COPY sends, text or binary: the table is the same.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::support::{Database, Deal, Files, Proxy, Ran, Side};

const TABLE: &str = "CREATE TABLE t (id int, price numeric(8, 2), at timestamptz, day date,
    name text, tags text[], on_sale boolean)";

/// `--batch-rows 10 -j 1` with these flags by way of a proxy that looks at what is copied: how it
/// ended, binary COPYs and text COPYs. These batches are so small that a COPY is one message.
fn load(database: &Database, file: &str, flags: &str) -> (Ran, [usize; 2]) {
    let sent = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = sent.clone();
    let proxy = Proxy::start(database.server.port(), move |message| {
        if message.side == Side::Client && message.tag == b'd' {
            let text = !message.body.starts_with(b"PGCOPY\n");
            counted[usize::from(text)].fetch_add(1, Relaxed);
        }
        Deal::Forward
    });
    database.run("TRUNCATE t");
    let load = database.load("t").arg(file).dsn(&proxy.dsn(&database.name));
    let load = load.flags("--batch-rows 10 -j 1 --verbose").flags(flags);
    (load.run(), [0, 1].map(|format| sent[format].load(Relaxed)))
}

/// Rows whose values all have a binary form, but for a name of the day that only the server knows.
fn rows(days: impl Fn(u32) -> &'static str) -> String {
    let mut text = "id,price,at,day,name,tags,on_sale\n".to_owned();
    for id in 1..=100 {
        let day = days(id);
        let name = ["", "\"\"", "\"a \"\"b\"\",\tc\"", "\\N", "é漢"][id as usize % 5];
        text += &format!("{id},{id}.25,2024-02-29 12:00:00+02,{day},{name},\"{{a,b}}\",t\n");
    }
    text
}

#[test]
fn text_and_binary_leave_the_same_table() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("rows.csv", rows(|_| "2024-02-29"));
    let mut expected = None;
    for (flags, copies) in [
        ("--strategy insert", [0, 0]),
        ("--copy-format text", [0, 10]),
        ("--copy-format binary", [10, 0]),
        ("--copy-format auto", [10, 0]),
        ("", [10, 0]),
    ] {
        let (ran, begun) = load(&database, &file, flags);
        ran.exits(0);
        assert_eq!(begun, copies, "{flags}: {ran}");
        let stored = database.rows("t");
        assert_eq!(stored.len(), 100);
        assert_eq!(&stored, expected.get_or_insert(stored.clone()), "{flags}");
    }
}

#[test]
fn a_row_without_a_binary_form_goes_as_text_beside_the_others() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write(
        "rows.csv",
        rows(|id| {
            if id % 4 == 0 {
                "Feb 29 2024"
            } else {
                "2024-02-29"
            }
        }),
    );
    load(&database, &file, "--copy-format text").0.exits(0);
    let expected = database.rows("t");
    for flags in ["--copy-format auto", "--copy-format binary"] {
        let (ran, begun) = load(&database, &file, flags);
        ran.exits(0);
        assert_eq!(begun, [10, 10], "{flags}: {ran}");
        assert!(!ran.stderr.contains("no binary form"), "{flags}: {ran}");
        assert_eq!(database.rows("t"), expected, "{flags}");
    }
}

/// A binary COPY in which most rows are refused by the encoder is work for nothing.
#[test]
fn auto_gives_binary_up_where_most_rows_have_no_binary_form() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write(
        "rows.csv",
        rows(|id| {
            if id % 10 < 6 {
                "Feb 29 2024"
            } else {
                "2024-02-29"
            }
        }),
    );
    load(&database, &file, "--copy-format text").0.exits(0);
    let expected = database.rows("t");
    let (ran, begun) = load(&database, &file, "--copy-format auto");
    ran.exits(0)
        .says(&["6 of 10 rows have no binary form: COPY goes on as text on this connection"]);
    assert_eq!(begun, [1, 10], "{ran}");
    assert_eq!(database.rows("t"), expected);
    // Binary does not give up.
    let (ran, begun) = load(&database, &file, "--copy-format binary");
    ran.exits(0);
    assert_eq!(begun, [10, 10], "{ran}");
    assert_eq!(database.rows("t"), expected);
}

#[test]
fn a_column_without_a_binary_form_is_text_in_auto_and_wrong_usage_for_binary() {
    let database = Database::with("CREATE TABLE t (id int, place point)");
    let files = Files::new();
    let file = files.write("rows.csv", "id,place\n1,\"(1,2)\"\n");
    let (ran, begun) = load(&database, &file, "--copy-format auto");
    ran.exits(0);
    assert_eq!(begun, [0, 1], "{ran}");
    assert_eq!(database.rows("t"), ["1|(1,2)"]);
    let (ran, begun) = load(&database, &file, "--copy-format binary");
    ran.exits(2).says(&["place"]);
    assert_eq!(begun, [0, 0], "{ran}");
}
