//! `pgrung status`.

use std::fmt::Write;

use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::done::Done;
use crate::cli::StatusArgs;
use crate::error::Error;
use crate::job::Time;
use crate::ledger::{self, ImportStatus, LedgerError, StatusFilter};
use crate::report::Console;
use crate::server_error::one_line;

pub async fn run(args: &StatusArgs, console: &Console) -> Result<Done, Error> {
    let (mut connection, _private) = args.server.control(console).await?;
    connection.require_ledger().await?;
    let filter = StatusFilter {
        import_id: args.import_id.clone(),
        job: args.job.clone(),
        table: args.table.clone(),
        since: args.since.map(|Time(since)| since),
    };
    let read = |client: Client| async {
        let imports = ledger::status(&client, &filter).await?;
        Ok((client, imports))
    };
    let imports = connection.ask("reading the ledger", read).await?;
    if let (Some(import_id), true) = (&args.import_id, imports.is_empty()) {
        return Err(LedgerError::UnknownImport(import_id.clone()).into());
    }
    let text = if args.json {
        format!("{:#}\n", json!(imports))
    } else {
        describe(&imports)
    };
    Ok(Done::new(text, json!({ "imports": imports })))
}

/// What became of its rows.
fn rows(import: &ImportStatus) -> String {
    if let Some(staging) = &import.staging {
        return format!(
            "{} rows staged in {}, none merged yet",
            HumanCount(import.staged),
            one_line(staging)
        );
    }
    let Some(merged) = &import.merged else {
        return format!("{} rows loaded", HumanCount(import.loaded));
    };
    let number = |name: &str| merged.get(name).and_then(Value::as_u64).unwrap_or(0);
    let names = ["updated", "unchanged", "ignored", "superseded", "deleted"];
    let others = names.map(|name| (name, number(name))).into_iter();
    let others = others.filter(|(_, rows)| *rows > 0);
    std::iter::once(("inserted", number("inserted")))
        .chain(others)
        .map(|(name, rows)| format!("{} {name}", HumanCount(rows)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// One paragraph an import.
fn describe(imports: &[ImportStatus]) -> String {
    if imports.is_empty() {
        return "no imports\n".to_string();
    }
    let mut text = String::new();
    for import in imports {
        let rate = import.rows_per_second.map_or(String::new(), |rate| {
            format!(", {} rows/s", HumanCount(rate as u64))
        });
        let _ = writeln!(
            text,
            "{}  {}  {} {}: {}, {} rejected ({} open){rate}; {} run{}, first {}, last {}",
            import.import_id,
            import.state,
            match import.mode.as_str() {
                "append" => "into",
                mode => mode,
            },
            one_line(&import.table),
            rows(import),
            HumanCount(import.rejected),
            HumanCount(import.rejects_open),
            import.runs,
            if import.runs == 1 { "" } else { "s" },
            import.started_at,
            import.run_at,
        );
        for source in &import.sources {
            let state = if source.finished {
                "complete"
            } else {
                "not complete"
            };
            let _ = write!(
                text,
                "  {}: {} committed, {state}",
                one_line(&source.name),
                HumanBytes(source.bytes)
            );
            for (from, to) in &source.gaps {
                let _ = write!(text, "; gap from byte {from} to {to}");
            }
            text.push('\n');
        }
        if let Some(first) = &import.first_reject {
            let _ = writeln!(
                text,
                "  rejected {}, the first in {}; pgrung rejects {} tells all",
                HumanCount(import.rejects_open),
                one_line(&first.to_string()),
                import.import_id
            );
        }
    }
    text
}
