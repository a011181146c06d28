//! The SQL of a replay: rejects of an import, locked while they are loaded again, and what became
//! of them.

use tokio_postgres::Client;
use tokio_postgres::types::{Oid, Type};

use super::error::{LedgerError, refused};
use super::rejects::{OpenRejects, storable};
use super::request::maps_of;
use super::{IMPORT_LOCK, rejects, spans};
use crate::reject_file::RejectLayout;
use crate::source::Reading;
use crate::strategy::Refusal;
use crate::target::{Map, Table, Target};

/// An import that the ledger knows, and whose rejects are told, or loaded again.
pub struct KnownImport {
    import_id: String,
    mode: String,
    /// Schema and table, quoted.
    pub target: String,
    target_oid: Oid,
    /// Names of the fields in their order.
    pub columns: Vec<String>,
    /// The expressions that they go through.
    pub maps: Vec<Map>,
    /// How its records are read.
    pub reading: Reading,
    unlogged: bool,
}

/// A reject that is not replayed yet.
pub struct OpenReject {
    /// Its number in the ledger.
    pub id: i64,
    /// The record's original bytes.
    pub original: Vec<u8>,
}

impl KnownImport {
    /// Finds the import.
    ///
    /// # Errors
    /// When there is none of that name, or another version of pgrung wrote it.
    pub async fn find(client: &Client, import_id: &str) -> Result<Self, LedgerError> {
        let row = client
            .query_typed_opt(
                // By the name that it has now.
                r#"SELECT mode, coalesce((SELECT g.target FROM pgrung.stagings g WHERE g.import_id = i.import_id), (SELECT format('"%s"."%s"', replace(nspname, '"', '""'), replace(relname, '"', '""'))
                                    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                    WHERE c.oid = target_oid), target) AS target,
                          target_oid, columns, maps, reading, target_unlogged
                   FROM pgrung.imports i WHERE import_id = $1"#,
                &[(&import_id, Type::TEXT)],
            )
            .await
            .map_err(refused("reading the import"))?
            .ok_or_else(|| LedgerError::UnknownImport(import_id.to_string()))?;
        let reading = serde_json::from_value(row.get("reading")).map_err(|error| {
            LedgerError::Unusable(format!(
                "import {import_id} was read in a way that this pgrung does not know: {error}"
            ))
        })?;
        Ok(KnownImport {
            import_id: import_id.to_string(),
            mode: row.get("mode"),
            target: row.get("target"),
            target_oid: row.get("target_oid"),
            columns: row.get("columns"),
            maps: maps_of(import_id, &row)?,
            reading,
            unlogged: row.get("target_unlogged"),
        })
    }

    /// Whether `table`, which has the name, is the one that the import loads.
    ///
    /// # Errors
    /// When it is another one, or its rows may have been replaced by newer ones since.
    pub fn check_table(&self, table: &Table) -> Result<(), LedgerError> {
        if self.mode != "append" {
            return Err(LedgerError::Changed(format!(
                "import {0} was loaded with --mode {1}: what it put aside may be older than what the table has; \
                 to load it all the same: pgrung rejects {0} --export FILE, then load that file with --mode upsert",
                self.import_id, self.mode
            )));
        }
        match table.oid == self.target_oid {
            true => Ok(()),
            false => Err(LedgerError::Changed(format!(
                "import {0}: {1} was dropped and made anew since, or has got its name from another one; \
                 to load its rejects into this table: pgrung rejects {0} --export FILE, then load that file",
                self.import_id, self.target
            ))),
        }
    }

    /// Its rejects that are not replayed.
    pub fn open_rejects(&self) -> OpenRejects<'_> {
        OpenRejects {
            imports: vec![&self.import_id],
            sources: None,
            unlogged: self.unlogged,
        }
    }

    /// How a file of its records is written: its columns first, where the source had a header.
    pub fn reject_layout(&self) -> RejectLayout {
        match self.reading.has_header() {
            true => (self.reading).reject_layout(&self.reading.field_names(&self.columns)),
            false => self.reading.reject_layout(&[]),
        }
    }

    /// The next rejects behind number `last`, `most` of them, locked until the transaction ends.
    pub async fn next(
        &self,
        client: &Client,
        last: i64,
        most: i64,
    ) -> Result<Vec<OpenReject>, tokio_postgres::Error> {
        // As a batch does: no compaction takes away the spans in which these rows are to be counted.
        let lock = format!("SELECT pg_advisory_xact_lock_shared({IMPORT_LOCK}, hashtext($1))");
        client.execute(&lock, &[&self.import_id]).await?;
        let sql = format!(
            "SELECT reject_id, original FROM {}
             WHERE import_id = $1 AND replayed_at IS NULL AND reject_id > $2
             ORDER BY reject_id LIMIT $3 FOR UPDATE",
            rejects(self.unlogged)
        );
        let rows = client.query(&sql, &[&self.import_id, &last, &most]).await?;
        let open = rows.iter().map(|row| OpenReject {
            id: row.get("reject_id"),
            original: row.get("original"),
        });
        Ok(open.collect())
    }

    /// Marks rejects as loaded, and counts them as such in their spans; returns how many could be
    /// marked.
    pub async fn mark_loaded(
        &self,
        client: &Client,
        ids: &[i64],
    ) -> Result<i64, tokio_postgres::Error> {
        let sql = format!(
            "WITH marked AS (
                 UPDATE {rejects} SET replayed_at = now() WHERE reject_id = ANY ($1) AND replayed_at IS NULL
                 RETURNING import_id, source, start_byte
             ), moved AS (
                 UPDATE {spans} p SET loaded = p.loaded + m.count, rejected = p.rejected - m.count
                 FROM (SELECT p.import_id, p.source, p.start_byte, count(*) AS count
                       FROM marked JOIN {spans} p
                         ON p.import_id = marked.import_id AND p.source = marked.source
                        AND marked.start_byte >= p.start_byte AND marked.start_byte < p.end_byte
                       GROUP BY 1, 2, 3) m
                 WHERE p.import_id = m.import_id AND p.source = m.source AND p.start_byte = m.start_byte
                 RETURNING m.count
             )
             SELECT count(*) AS marked FROM marked",
            rejects = rejects(self.unlogged),
            spans = spans(self.unlogged),
        );
        Ok(client.query_one(&sql, &[&ids]).await?.get("marked"))
    }

    /// Notes why a reject was refused again.
    pub async fn note_refused(
        &self,
        client: &Client,
        target: &Target,
        id: i64,
        refusal: &Refusal,
    ) -> Result<u64, tokio_postgres::Error> {
        let sql = format!(
            "UPDATE {} SET sqlstate = $2, column_name = $3, constraint_name = $4, message = $5, rejected_at = now()
             WHERE reject_id = $1",
            rejects(self.unlogged)
        );
        let (column, message) = (refusal.column_name(target), storable(&refusal.message));
        client
            .execute(
                &sql,
                &[
                    &id,
                    &refusal.sqlstate,
                    &column,
                    &refusal.constraint,
                    &message,
                ],
            )
            .await
    }
}
