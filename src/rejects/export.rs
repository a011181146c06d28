//! Exports the open rejects of an import from the ledger to a file.

use std::path::Path;
use std::pin::pin;

use futures::TryStreamExt;
use tokio_postgres::Client;

use super::{Reason, RejectFile};
use crate::error::Error;
use crate::ledger::Ledger;

/// Writes the rejects that are not replayed to `path`, in the order of the sources;
/// returns their number.
///
/// # Errors
/// What the server or the operating system says.
pub async fn export(
    client: &Client,
    ledger: &Ledger,
    header: Vec<u8>,
    path: &Path,
) -> Result<u64, Error> {
    let failed = |source| Error::Output {
        name: path.display().to_string(),
        source,
    };
    let refused = |error| Error::Server {
        doing: "exporting the rejects",
        error,
    };
    let mut file = RejectFile::create(path, header).map_err(failed)?;
    let sql = format!(
        "SELECT s.name, r.record, r.line, r.start_byte, r.end_byte, r.sqlstate, r.column_name, r.constraint_name, r.message, r.original
         FROM {} r JOIN pgrung.sources s USING (import_id, source)
         WHERE r.import_id = $1 AND r.replayed_at IS NULL
         ORDER BY r.source, r.start_byte",
        ledger.rejects()
    );
    let rows = client
        .query_raw(
            &sql,
            [&ledger.import_id as &(dyn tokio_postgres::types::ToSql + Sync)],
        )
        .await
        .map_err(refused)?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(refused)? {
        let number = |index| u64::try_from(row.get::<_, i64>(index)).unwrap_or(0);
        let reason = Reason {
            source: row.get(0),
            record: number(1),
            line: number(2),
            start_byte: number(3),
            end_byte: number(4),
            sqlstate: row.get(5),
            column: row.get(6),
            constraint: row.get(7),
            message: row.get(8),
        };
        file.push(row.get(9), &reason).map_err(failed)?;
    }
    file.flush().map_err(failed)?;
    Ok(file.count())
}
