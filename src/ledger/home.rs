//! The import to which the new sources of a run belong.

use serde_json::json;
use tokio_postgres::Transaction;
use tokio_postgres::types::Oid;

use super::LedgerSource;
use super::error::LedgerError;
use super::known::signed_head;
use super::request::Request;

/// The import to which new sources of a run belong.
pub(super) struct Home {
    pub import_id: String,
    epoch: i64,
}

impl Home {
    /// The import that the run names, else a new one.
    pub async fn find(
        transaction: &Transaction<'_>,
        request: &Request<'_>,
    ) -> Result<Self, LedgerError> {
        let import_id = match &request.import_id {
            Some(import_id) => import_id.clone(),
            None => format!("{:016x}", fastrand::u64(..)),
        };
        // Of one whose rows were replaced nothing is left but its name.
        transaction
            .execute(
                "WITH gone AS (DELETE FROM pgrung.sources s USING pgrung.imports i
                               WHERE i.import_id = $1 AND i.replaced_at IS NOT NULL AND s.import_id = i.import_id)
                 DELETE FROM pgrung.imports WHERE import_id = $1 AND replaced_at IS NOT NULL",
                &[&import_id],
            )
            .await?;
        // One without sources is as good as new, but for the count of its runs.
        let made = transaction
            .execute(
                "INSERT INTO pgrung.imports AS i (import_id, target, target_oid, target_filenode, target_unlogged, columns, reading, job, maps, merging, mode, epoch)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, coalesce($10::jsonb->>'mode', 'append'), 1)
                 ON CONFLICT (import_id) DO UPDATE
                 SET target = $2, target_oid = $3, target_filenode = $4, target_unlogged = $5, columns = $6, reading = $7, job = $8, maps = $9, merging = $10, mode = coalesce($10::jsonb->>'mode', 'append')
                 WHERE NOT EXISTS (SELECT FROM pgrung.sources s WHERE s.import_id = i.import_id)",
                &[
                    &import_id,
                    &request.target.table,
                    &request.table.oid,
                    &request.table.filenode,
                    &request.table.unlogged,
                    &request.columns(),
                    &json!(request.reading),
                    &request.job,
                    &request.maps(),
                    &request.merging,
                ],
            )
            .await?;
        let row = transaction
            .query_one(
                "SELECT epoch, target, target_oid, columns, maps, merging, reading FROM pgrung.imports WHERE import_id = $1",
                &[&import_id],
            )
            .await?;
        let elsewhere = (row.get::<_, Oid>("target_oid") != request.table.oid)
            .then(|| format!("it loads {}", row.get::<_, &str>("target")));
        match elsewhere.or_else(|| request.misfit(&row)) {
            Some(misfit) if made == 0 => Err(LedgerError::Changed(format!(
                "import {import_id} is there already, but {misfit}: name another --import-id, or --restart with what was loaded under it"
            ))),
            _ => Ok(Home {
                import_id,
                epoch: row.get("epoch"),
            }),
        }
    }

    /// Gives a new source its number.
    pub async fn enrol(
        &self,
        transaction: &Transaction<'_>,
        request: &Request<'_>,
        input: usize,
    ) -> Result<LedgerSource, LedgerError> {
        let source = &request.sources[input];
        let row = transaction
            .query_one(
                "INSERT INTO pgrung.sources (import_id, source, name, heads, epoch)
                 SELECT $1, coalesce(max(source) + 1, 0), $2, array_remove(ARRAY[$3::bigint], NULL), $4 FROM pgrung.sources WHERE import_id = $1
                 RETURNING source",
                &[&self.import_id, &source.name, &signed_head(source), &self.epoch],
            )
            .await?;
        Ok(LedgerSource {
            import_id: self.import_id.clone(),
            number: row.get("source"),
            epoch: self.epoch,
        })
    }
}
