//! Closes an import that has no gap left, and merges its spans so that the ledger stays small.

use tokio_postgres::Client;

use super::Ledger;

impl Ledger {
    /// Marks the import as finished and merges the spans of each source into one. False if a newer
    /// run has taken over; then nothing is changed.
    ///
    /// # Errors
    /// What the server says.
    pub async fn finish(&self, client: &mut Client) -> Result<bool, tokio_postgres::Error> {
        let transaction = client.transaction().await?;
        // Exit code 0 promises that the rows are durable, also after `--durability end`: this
        // commit is flushed, and the log before it with it.
        transaction
            .batch_execute("SET LOCAL synchronous_commit = on")
            .await?;
        let ours = transaction
            .execute(
                "UPDATE pgrung.imports SET finished_at = now() WHERE import_id = $1 AND epoch = $2",
                &[&self.import_id, &self.epoch],
            )
            .await?;
        if ours == 0 {
            return Ok(false);
        }
        for source in &self.sources {
            transaction
                .execute(
                    "UPDATE pgrung.sources SET finished_at = now() WHERE import_id = $1 AND source = $2",
                    &[&self.import_id, source],
                )
                .await?;
        }
        self.merge_in(&transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
