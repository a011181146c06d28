//! Unique values that move from row to row.

use crate::support::{Database, seeded};

const TABLES: [&str; 2] = [
    "CREATE TABLE t (id int PRIMARY KEY, place text UNIQUE)",
    "CREATE TABLE t (id int PRIMARY KEY, place int4range, EXCLUDE USING gist (place WITH &&))",
];

fn place(table: &str, number: usize) -> String {
    match table.contains("range") {
        true => format!("[{number},{})", number + 1),
        false => number.to_string(),
    }
}

#[test]
fn rows_can_swap_unique_values() {
    let mut rng = seeded("rows_can_swap_unique_values");
    for table in TABLES {
        let database = Database::with(table);
        let mut places: Vec<usize> = (0..60).collect();
        for round in 0..4 {
            let row =
                |(id, number): (usize, &usize)| format!("{id},\"{}\"\n", place(table, *number));
            let rows: String = places.iter().enumerate().map(row).collect();
            let ran = database
                .load_once("t")
                .flags("--mode sync")
                .run_on(format!("id,place\n{rows}"));
            ran.exits(0);
            let wanted: Vec<String> = places.iter().map(|number| place(table, *number)).collect();
            assert_eq!(database.lines("SELECT place FROM t ORDER BY id"), wanted);
            assert_eq!(
                ran.rows("inserted") + ran.rows("deleted"),
                [60, 0][usize::from(round > 0)],
                "{ran}"
            );
            match round {
                // All of them move on by one, then anywhere.
                0 => places.rotate_left(1),
                _ => rng.shuffle(&mut places),
            }
        }
    }
}
