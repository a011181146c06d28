//! Writes TPC-H lineitem, the rows that `pgrung bench` makes, for benchmarks outside this crate:
//! `cargo bench --bench lineitem -- ROWS FILE` writes CSV with a header, `-- --columns` prints the
//! column definitions of the table.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgrung::internal::{LINEITEM, write_lineitem};
use std::fs::File;
use std::process::ExitCode;

fn main() -> ExitCode {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let written = match arguments.as_slice() {
        [flag] if flag == "--columns" => {
            println!("{LINEITEM}");
            return ExitCode::SUCCESS;
        }
        [rows, file] => rows
            .parse()
            .map_err(std::io::Error::other)
            .and_then(|rows| write_lineitem(rows, File::create(file)?)),
        _ => {
            eprintln!("usage: cargo bench --bench lineitem -- ROWS FILE | --columns");
            return ExitCode::from(2);
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lineitem: {error}");
            ExitCode::FAILURE
        }
    }
}
