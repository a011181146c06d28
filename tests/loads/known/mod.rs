//! What the ledger knows of files: which content is loaded already, under whatever name and in
//! whatever company.

mod compared;
mod cut;
mod emptied;
mod imports;
mod leftovers;
mod rotated;

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::support::{Database, Ran};

/// A file of rows that are all of one length.
fn file(ids: RangeInclusive<u32>) -> String {
    let lines: Vec<String> = ids.map(|id| format!("{id:07},name {id:07}\n")).collect();
    format!("id,name\n{}", lines.concat())
}

fn database() -> Arc<Database> {
    Database::with("CREATE TABLE t (id int, name text)")
}

/// Rows and distinct ids in the table.
fn stored(database: &Database) -> String {
    database.one("SELECT count(*) || ' ' || count(DISTINCT id) FROM t")
}

#[track_caller]
fn exits(database: &Database, files: &[&String], code: i32) -> Ran {
    let ran = database.load_once("t").args(files).run();
    ran.exits(code);
    ran
}
