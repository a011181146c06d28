//! Rejects: records that are no rows, or rows that the server refused, kept with their original
//! bytes so that they can be loaded again once the cause is mended.

mod export;
mod file;
mod replay;

use tokio_postgres::Client;

use crate::batch::Batch;
use crate::ledger::Ledger;
use crate::strategy::Refused;
use crate::table::Target;

pub use export::export;
pub use file::{Reason, RejectFile, reasons_path};
pub use replay::{ReplayPlan, Replayed, replay};

/// Writes the refused records of a batch into the ledger, in the batch's own transaction.
///
/// # Errors
/// What the server says.
pub async fn store(
    client: &Client,
    ledger: &Ledger,
    target: &Target,
    batch: &Batch,
    refused: &Refused,
) -> Result<u64, tokio_postgres::Error> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut starts = Vec::new();
    let mut ends = Vec::new();
    let mut records = Vec::new();
    let mut lines = Vec::new();
    let mut states = Vec::new();
    let mut columns = Vec::new();
    let mut constraints = Vec::new();
    let mut messages = Vec::new();
    let mut originals = Vec::new();
    for (index, refusal) in refused.iter() {
        let range = batch.range(index);
        let position = batch.position(index);
        starts.push(signed(batch.start_byte + range.start as u64));
        ends.push(signed(batch.start_byte + range.end as u64));
        records.push(signed(position.record));
        lines.push(signed(position.line));
        states.push(refusal.sqlstate.as_str());
        columns.push(refusal.column_name(target));
        constraints.push(refusal.constraint.as_deref());
        // A message can quote the row, and with it bytes that no text column takes.
        messages.push(refusal.message.replace('\0', "\\0"));
        originals.push(batch.record(index));
    }
    let sql = format!(
        "INSERT INTO {} (import_id, source, start_byte, end_byte, record, line, sqlstate, column_name, constraint_name, message, original)
         SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bytea[])",
        ledger.rejects()
    );
    client
        .execute(
            &sql,
            &[
                &ledger.import_id,
                &ledger.source(batch),
                &starts,
                &ends,
                &records,
                &lines,
                &states,
                &columns,
                &constraints,
                &messages,
                &originals,
            ],
        )
        .await
}
