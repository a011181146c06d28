//! `pgrung rejects`.

use std::fmt::Write;

use indicatif::HumanCount;
use serde_json::json;

use super::done::Done;
use crate::cli::RejectsArgs;
use crate::error::Error;
use crate::job::check_output;
use crate::load::{Rejects, rejects, told};
use crate::report::Console;
use crate::server_error::one_line;

pub async fn run(args: &RejectsArgs, console: &Console) -> Result<Done, Error> {
    let RejectsArgs {
        import_id, export, ..
    } = args;
    if let Some(path) = export {
        check_output(&[], "--export", path)?;
    }
    let (mut connection, _private) = args.server.control(console).await?;
    let (table, found) = rejects(&mut connection, import_id, export.as_deref()).await?;
    let fields = json!({
        "import_id": import_id,
        "table": table,
        "rejects": found.count,
        "reject_reasons": found.reasons,
    });
    let text = match args.json {
        true => format!("{fields:#}\n"),
        false => describe(import_id, &table, &found),
    };
    let mut done = Done::new(text, fields);
    let written = export.as_ref().filter(|_| found.count > 0);
    done.notice = written.map(|path| told(found.count, path));
    Ok(done)
}

fn describe(import_id: &str, table: &str, found: &Rejects) -> String {
    let mut text = format!("import {import_id} into {}: ", one_line(table));
    let _ = match found.count {
        0 => writeln!(text, "no rejects"),
        1 => writeln!(text, "1 reject"),
        count => writeln!(text, "{} rejects", HumanCount(count)),
    };
    for reason in &found.reasons {
        let _ = writeln!(text, "  rejected {reason}");
    }
    text
}
