//! Merges spans that follow each other without a gap, so that the ledger stays small however many
//! batches a source had.

use tokio_postgres::{Client, Transaction};

use super::{Ledger, outcome_columns};

impl Ledger {
    /// Merges the spans of this run's sources. Waits for batches under way and keeps new ones
    /// waiting meanwhile: a batch whose commit is in doubt must find its span, whole or merged.
    pub async fn merge(&self, client: &mut Client) -> Result<(), tokio_postgres::Error> {
        let transaction = client.transaction().await?;
        transaction
            .batch_execute("SET LOCAL synchronous_commit = off")
            .await?;
        self.merge_in(&transaction).await?;
        transaction.commit().await
    }

    /// As [`Ledger::merge`], in a transaction of the caller's.
    pub(super) async fn merge_in(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        // Not the row itself: shared locks of new batches would pass by a waiting exclusive one.
        transaction
            .execute(
                "SELECT pg_advisory_xact_lock(1885827438, hashtext($1))",
                &[&self.import_id],
            )
            .await?;
        let fence = "SELECT 1 FROM pgrung.sources
                     WHERE import_id = $1 AND source = $2 AND epoch = $3 FOR SHARE";
        let spans = self.spans();
        let merge = format!(
            "WITH marked AS (
                 SELECT start_byte, lag(end_byte) OVER (ORDER BY start_byte) IS DISTINCT FROM start_byte AS begins
                 FROM {spans} WHERE import_id = $1 AND source = $2
             ), runs AS (
                 SELECT start_byte, sum(begins::int) OVER (ORDER BY start_byte) AS run FROM marked
             ), long AS (
                 SELECT start_byte, run FROM runs
                 WHERE run IN (SELECT run FROM runs GROUP BY run HAVING count(*) > 1)
             ), old AS (
                 DELETE FROM {spans} p USING long
                 WHERE p.import_id = $1 AND p.source = $2 AND p.start_byte = long.start_byte
                 RETURNING p.*, long.run
             )
             INSERT INTO {spans} (import_id, source, start_byte, end_byte, first_record, records, lines, {})
             SELECT $1, $2, min(start_byte), max(end_byte), min(first_record), sum(records), sum(lines), {}
             FROM old GROUP BY run",
            outcome_columns(|_, column| column.to_string()),
            outcome_columns(|_, column| format!("sum({column})")),
        );
        for source in &self.mergeable {
            let ours = transaction
                .query_opt(fence, &[&self.import_id, source, &self.epoch])
                .await?;
            if ours.is_some() {
                transaction
                    .execute(&merge, &[&self.import_id, source])
                    .await?;
            }
        }
        Ok(())
    }
}
