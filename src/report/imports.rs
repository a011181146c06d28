//! The ledger's imports as a table for people.

use std::fmt::Write;

use indicatif::{HumanBytes, HumanCount};

use crate::ledger::ImportStatus;

/// One paragraph an import, latest run first.
pub fn describe_imports(imports: &[ImportStatus]) -> String {
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
            "{}  {}  into {}: {} rows loaded, {} rejected ({} open){rate}; {} run{}, first {}, last {}",
            import.import_id,
            import.state,
            import.table,
            HumanCount(import.loaded),
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
                source.name,
                HumanBytes(source.bytes)
            );
            for (from, to) in &source.gaps {
                let _ = write!(text, "; gap from byte {from} to {to}");
            }
            text.push('\n');
        }
    }
    text
}
