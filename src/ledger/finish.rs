//! Closes an import that has no gap left, and merges its spans so that the ledger stays small.

use tokio_postgres::{Client, GenericClient};

use super::{Ledger, unsigned};
use crate::faults;
use crate::target::Place;

/// How the closing of an import ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It is finished, and durable.
    Done,
    /// A newer run has taken over; nothing is changed.
    TakenOver,
    /// The ledger has only so many records of those that this run has seen committed: the server
    /// has crashed and lost the others, with their rows. Nothing is changed.
    Lost(u64),
}

impl Ledger {
    /// Records of this run's sources that are committed.
    pub async fn records(&self, client: &impl GenericClient) -> Result<u64, tokio_postgres::Error> {
        let sql = format!(
            "SELECT coalesce(sum(records), 0)::bigint AS records FROM {} WHERE import_id = $1 AND source = ANY ($2)",
            self.spans()
        );
        let row = client
            .query_one(&sql, &[&self.import_id, &self.sources])
            .await?;
        Ok(unsigned(row.get("records")))
    }

    /// Marks the import as finished, after a look whether all `records` of its sources are still
    /// committed, and merges the spans of each source into one. `place`: where its rows were found.
    pub async fn finish(
        &self,
        client: &mut Client,
        records: u64,
        place: Option<&Place>,
    ) -> Result<Finish, tokio_postgres::Error> {
        // Of partitions, which come and go between two runs, the ledger keeps nothing.
        let known = self.table.filenode;
        let filenode = known.and(place.map_or(known, |place| place.filenode));
        let transaction = client.transaction().await?;
        // Exit code 0 promises that the rows are durable, also after `--durability end`: this
        // commit is flushed, and the log before it with it.
        transaction
            .batch_execute("SET LOCAL synchronous_commit = on")
            .await?;
        let ours = transaction
            .execute(
                "UPDATE pgrung.imports SET finished_at = now(), target_filenode = $3
                 WHERE import_id = $1 AND epoch = $2",
                &[&self.import_id, &self.epoch, &filenode],
            )
            .await?;
        if ours == 0 {
            return Ok(Finish::TakenOver);
        }
        // Commits that the server answered can be gone again: those not waited for
        // (synchronous_commit = off), those of an unlogged table, those a failover left behind.
        let found = self.records(&transaction).await?;
        if found < records && !faults::sabotaged("finish") {
            return Ok(Finish::Lost(found));
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
        // From now on spans are younger than every row: see `Remembered::age`.
        let touch = format!(
            "UPDATE {} SET records = records WHERE import_id = $1",
            self.spans()
        );
        transaction.execute(&touch, &[&self.import_id]).await?;
        transaction.commit().await?;
        Ok(Finish::Done)
    }
}
