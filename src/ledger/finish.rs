//! Closes the sources of a run, and compacts their spans so that the ledger stays small.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, Transaction};

use super::error::LedgerError;
use super::user_sql::run_sql;
use super::{Ledger, begin, unsigned};
use crate::faults;
use crate::target::Place;

/// Makes a transaction wait for the disk at its commit, where the server is set not to wait at all.
/// Where it is set to wait for less than `on` or for more, that is left alone: a standby that is away
/// would be waited for without end.
pub const WAIT_FOR_THE_DISK: &str = "SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') = 'off'";

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
            "SELECT coalesce(sum(records), 0)::bigint AS records
             FROM {} JOIN unnest($1::text[], $2::int[]) AS mine (import_id, source) USING (import_id, source)",
            self.spans()
        );
        let (imports, numbers) = self.keys();
        let keys: [(&(dyn ToSql + Sync), Type); 2] =
            [(&imports, Type::TEXT_ARRAY), (&numbers, Type::INT4_ARRAY)];
        let row = client.query_typed_one(&sql, &keys).await?;
        Ok(unsigned(row.get("records")))
    }

    /// Notes that sources which are not `whole` are not read to their end.
    pub(super) async fn reopen(
        &self,
        transaction: &Transaction<'_>,
        whole: &[bool],
    ) -> Result<(), tokio_postgres::Error> {
        for (source, _) in self.sources.iter().zip(whole).filter(|(_, whole)| !**whole) {
            transaction
                .execute(
                    "WITH source AS (UPDATE pgrung.sources SET finished_at = NULL WHERE import_id = $1 AND source = $2)
                     UPDATE pgrung.imports SET finished_at = NULL WHERE import_id = $1",
                    &[&source.import_id, &source.number],
                )
                .await?;
        }
        Ok(())
    }

    /// Marks the sources of this run as finished, after a look whether all `records` of them are still
    /// committed, and with them each import that has no other; compacts their spans. `place`: where the
    /// rows were found; `after`: SQL to run if any of them was not finished.
    pub async fn finish(
        &self,
        client: &mut Client,
        records: u64,
        place: Option<&Place>,
        after: &[String],
    ) -> Result<Finish, LedgerError> {
        // Of partitions, which come and go between two runs, the ledger keeps nothing.
        let known = self.table.filenode;
        let filenode = known.and(place.map_or(known, |place| place.filenode));
        let transaction = begin(client).await?;
        // Exit code 0 promises that the rows are durable, also after `--durability end`: this
        // commit is flushed, and the log before it with it.
        transaction.batch_execute(WAIT_FOR_THE_DISK).await?;
        // In the order of whoever opens: imports, then their sources.
        let imports = self.keys().0;
        transaction
            .execute(
                "SELECT 1 FROM pgrung.imports WHERE import_id = ANY ($1) ORDER BY import_id FOR UPDATE",
                &[&imports],
            )
            .await?;
        let mut is_new = false;
        for source in &self.sources {
            let ours = transaction
                .query_opt(
                    "UPDATE pgrung.sources SET finished_at = coalesce(finished_at, now())
                     WHERE import_id = $1 AND source = $2 AND epoch = $3 RETURNING finished_at = now() AS new",
                    &[&source.import_id, &source.number, &source.epoch],
                )
                .await?;
            match ours {
                Some(row) => is_new |= row.get::<_, bool>("new"),
                None => return Ok(Finish::TakenOver),
            }
        }
        // Commits that the server answered can be gone again: those not waited for
        // (synchronous_commit = off), those of an unlogged table, those a failover left behind.
        let found = self.records(&transaction).await?;
        if found < records && !faults::sabotaged("finish") {
            return Ok(Finish::Lost(found));
        }
        // An import is finished when all its sources are.
        transaction
            .execute(
                "UPDATE pgrung.imports i SET target_filenode = $2, finished_at = CASE
                     WHEN EXISTS (SELECT 1 FROM pgrung.sources s
                                  WHERE s.import_id = i.import_id AND s.finished_at IS NULL) THEN NULL
                     ELSE coalesce(finished_at, now()) END
                 WHERE import_id = ANY ($1)",
                &[&imports, &filenode],
            )
            .await?;
        self.compact_in(&transaction).await?;
        // From now on spans are younger than every row: see `Remembered::age`.
        let touch = format!(
            "UPDATE {} SET records = records WHERE import_id = ANY ($1)",
            self.spans()
        );
        transaction.execute(&touch, &[&imports]).await?;
        if is_new {
            run_sql(&transaction, "--after", after).await?;
        }
        transaction.commit().await?;
        Ok(Finish::Done)
    }
}
