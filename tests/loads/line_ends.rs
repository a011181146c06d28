//! Line ends of every kind side by side, judged by psql's \copy: what it takes leaves the same
//! table, and of what it refuses no row is stored that the file does not hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::support::{Database, Files, Ran, seeded, times};

const ENDS: [&str; 4] = ["\n", "\r\n", "\r", "\r\r\n"];

/// A file of lines, and the rows that its author meant.
struct Written {
    text: String,
    meant: BTreeSet<String>,
    /// Whether a line break stands outside quotes within a line.
    stray: bool,
}

/// Lines of two fields or of one, most of them with the same end. A stray `\n` or `\r` is left out
/// where lines end so: there it is a line end like any other.
fn written(random: &mut fastrand::Rng, one_column: bool) -> Written {
    let usual = ENDS[random.usize(..ENDS.len())];
    let other = ENDS[random.usize(..ENDS.len())];
    let mixed = random.bool();
    let mut written = Written {
        text: String::new(),
        meant: BTreeSet::new(),
        stray: false,
    };
    let mut first = "";
    for id in 0..random.usize(1..7) {
        let mut value = format!("v{id}");
        let mut field = value.clone();
        match random.u8(..6) {
            0 => {
                value = format!("q{}x", ENDS[random.usize(..ENDS.len())]);
                field = format!("\"{value}\"");
            }
            1 => {
                let stray = ["\n", "\r"][random.usize(..2)];
                if stray != first && id > 0 {
                    value = format!("a{stray}b");
                    field = value.clone();
                    written.stray = true;
                }
            }
            _ => {}
        }
        written.meant.insert(match one_column {
            true => format!("({value:?})"),
            false => format!("({id},{value:?})"),
        });
        if !one_column {
            written.text += &format!("{id},");
        }
        written.text += &field;
        let odd = mixed && random.u8(..3) == 0;
        let end = if odd { other } else { usual };
        if id == 0 {
            first = end;
        }
        written.text += end;
    }
    if random.u8(..4) == 0 {
        written.text.truncate(written.text.trim_end().len());
    }
    written
}

/// The rows of the table, as `meant` spells them; the table is empty afterwards.
fn taken(database: &Database, one_column: bool) -> BTreeSet<String> {
    let sql = match one_column {
        true => "SELECT value FROM t1",
        false => "SELECT value, id FROM t2",
    };
    let rows = database.query(sql);
    database.run("DELETE FROM t1; DELETE FROM t2");
    rows.iter()
        .map(|row| {
            let value: Option<&str> = row.get(0);
            match one_column {
                true => format!("({:?})", value.unwrap_or("NULL")),
                false => format!("({},{:?})", row.get::<_, i32>(1), value.unwrap_or("NULL")),
            }
        })
        .collect()
}

#[test]
fn no_mixture_of_line_ends_becomes_other_data() {
    let mut random = seeded("line ends");
    let database =
        Database::with("CREATE TABLE t1 (value text); CREATE TABLE t2 (id int, value text)");
    let files = Files::new();
    let (mut both, mut refused) = (0, 0);
    for _ in 0..times(60, 1000) {
        let one_column = random.bool();
        let Written { text, meant, stray } = written(&mut random, one_column);
        let file = files.write("lines.csv", &text);
        let table = if one_column { "t1" } else { "t2" };
        let copy = format!("\\copy {table} from '{file}' with (format csv)");
        let psql = database.psql().args(["-c", &copy]).run();
        let psql_takes = taken(&database, one_column);
        let ran = database
            .load_once(table)
            .arg(&file)
            .flags("--no-header --no-ledger --progress none --rejects")
            .arg(files.path("bad.csv"))
            .run();
        let we_take = taken(&database, one_column);
        let what = || format!("{text:?} into {table}: psql {psql}\n{ran}");
        if psql.code == Some(0) {
            both += 1;
            ran.exits(0);
            assert_eq!(we_take, psql_takes, "{}", what());
            continue;
        }
        refused += 1;
        assert!(we_take.is_subset(&meant), "{we_take:?}: {}", what());
        // All of it only where nothing but the kind of its line ends is wrong.
        let whole = ran.code == Some(0);
        assert!(!whole || (!stray && we_take == meant), "{}", what());
    }
    assert!(both > 5 && refused > 5, "{both} taken, {refused} refused");
}

#[test]
fn a_file_whose_line_ends_were_converted_twice_is_refused() {
    let database = Database::with("CREATE TABLE t2 (id int, value text)");
    let ran = load(&database, &Files::new(), "a.csv", "id,value\r\r\n1,a\r\r\n");
    ran.exits(6).says(&["ends in \\r\\r\\n", "tr -d '\\r'"]);
}

fn load(database: &Arc<Database>, files: &Files, name: &str, text: &str) -> Ran {
    let file = files.write(name, text);
    let bad = files.path("bad.csv");
    let load = database.load_once("t2").arg(file);
    load.flags("--progress none --rejects").arg(bad).run()
}

#[test]
fn each_file_of_a_load_has_its_own_line_ends() {
    let database = Database::with("CREATE TABLE t2 (id int, value text)");
    let files = Files::new();
    files.write("b.csv", "id,value\r\n3,c\r\n4,d\r\n");
    files.write("c.csv", "id,value\n5,e\n6,f");
    let glob = files
        .write("a.csv", "id,value\n1,a\n2,b\n")
        .replace("a.csv", "*.csv");
    database.load_once("t2").arg(glob).run().exits(0);
    assert_eq!(database.count("t2"), 6);
}

#[test]
fn rejects_of_a_file_of_crlf_lines_load_again_once_they_are_mended() {
    let database = Database::with("CREATE TABLE t2 (id int, value text)");
    let files = Files::new();
    let text = "id,value\r\n1,a\nb\r\nx,y\r\n3,c\r\nz,\"last\"";
    let ran = load(&database, &files, "a.csv", text);
    ran.exits(3).tells("a line feed outside quotes");
    let bad = std::fs::read_to_string(files.path("bad.csv")).unwrap();
    assert_eq!(bad, "\"id\",\"value\"\r\n1,a\nb\r\nx,y\r\nz,\"last\"\r\n");
    let mended = bad
        .replace("a\nb", "\"a\nb\"")
        .replace("x,", "2,")
        .replace("z,", "4,");
    let ran = load(&database, &files, "mended.csv", &mended);
    ran.exits(0);
    let rows = "1|a\nb 2|y 3|c 4|last";
    assert_eq!(database.rows("t2").join(" "), rows);
}

#[test]
fn a_first_line_that_arrives_in_pieces_tells_how_lines_end() {
    let database = Database::with("CREATE TABLE t2 (id int, value text)");
    let mut running = database
        .load_once("t2")
        .flags("- --no-header --no-ledger")
        .open_with("1,\"a\nb\"");
    std::thread::sleep(std::time::Duration::from_millis(200));
    running.send("\r2,c\r");
    running.end().exits(0);
    assert_eq!(database.rows("t2").join(" "), "1|a\nb 2|c");
}
