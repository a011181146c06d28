//! One merge of staged rows, or of a part of them, in the caller's transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::Merge;
use super::error::MergeError;
use super::part::{Merged, Part};
use super::sql::Sql;
use super::writer::{Others, Writer};
use crate::ledger::Ledger;
use crate::outcome::{Outcome, Tally};
use crate::report::Reasons;
use crate::target::{STATE, quote_name};

/// What a merge of one transaction works with.
pub struct Step<'a> {
    pub merge: &'a Merge,
    pub client: &'a Client,
    /// Where rejects go.
    pub ledger: &'a Ledger,
    /// Names of the sources.
    pub sources: &'a [Arc<str>],
    /// Whether records that lose are kept with the rejects.
    pub keep_losers: bool,
    /// Longest wait for other writers of the table.
    pub lock_wait: Duration,
    /// Whether the first bad row ends it all.
    pub stop_at_first: bool,
}

/// How long those who come later have to wait behind us while we wait for a lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

impl Step<'_> {
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer {
            merge: self.merge,
            client: self.client,
        }
    }

    /// Leaves of the records of each key the one that wins; returns how many lose.
    ///
    /// # Errors
    /// What the server says.
    pub async fn drop_losers(&self) -> Result<u64, MergeError> {
        if self.merge.key.is_none() {
            return Ok(0);
        }
        let sql = Sql::new(self.merge, Part::default());
        match self
            .writer()
            .attempt(self.writer().execute(&sql.unique()))
            .await?
        {
            Ok(_) => Ok(0),
            Err(_) => self.writer().execute(&sql.drop_losers()).await,
        }
    }

    /// Values that divide the rows into so many parts, at most.
    ///
    /// # Errors
    /// What the server says.
    pub async fn bounds(&self, parts: usize) -> Result<Vec<String>, MergeError> {
        let sql = Sql::new(self.merge, Part::default());
        match sql.bounds(parts) {
            Some(bounds) if parts > 1 => {
                let row = self.client.query_typed_one(&bounds, &[]).await?;
                let mut bounds: Vec<String> = row.get("bounds");
                bounds.dedup();
                Ok(bounds)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Of the records that lose, how many have not won after all; keeps them with the rejects if that
    /// is wanted. `losers`: how many there were where rows are not fully stamped.
    ///
    /// # Errors
    /// What the server says.
    pub async fn superseded(&self, losers: u64) -> Result<u64, MergeError> {
        if !self.merge.full || self.merge.key.is_none() {
            return Ok(losers);
        }
        let sql = Sql::new(self.merge, Part::default());
        if self.keep_losers {
            let (staging, lost_to) = (&self.merge.staging, sql.lost_to());
            self.ledger
                .keep_losers(self.client, staging, &lost_to)
                .await?;
        }
        let lost = sql.with(&format!("s.{} = 'l'", quote_name(STATE)));
        self.writer().number(&lost.count()).await
    }

    /// Merges the rows of `part` into a table that has none of its own, though two of them may have
    /// one key: the table's index tells. `None`: that is not how it is, and nothing is done.
    ///
    /// # Errors
    /// Whatever is not about a row.
    pub async fn run_new(&self, part: &Part) -> Result<Option<Merged>, MergeError> {
        if self.merge.key.is_none() || self.merge.suppresses {
            return Ok(None);
        }
        let sql = Sql::new(self.merge, part.clone());
        Ok(self
            .writer()
            .attempt(self.all_new(&sql))
            .await?
            .ok()
            .flatten())
    }

    /// Merges the rows of `part`, of each key one. Rows that the table refuses are put aside, and
    /// `reasons` says why.
    ///
    /// # Errors
    /// Whatever is not about a row.
    pub async fn run(&self, part: &Part, reasons: &Reasons) -> Result<Merged, MergeError> {
        let sql = Sql::new(self.merge, part.clone());
        if !self.merge.full || self.stop_at_first {
            return self.whole(&sql).await;
        }
        match self.writer().attempt(self.whole(&sql)).await? {
            Ok(merged) => Ok(merged),
            Err(failure) if self.is_pointed_at(&failure).await? => Err(self.undeletable(failure)),
            Err(failure) if self.may_swap(&sql, &failure).await? => {
                let anew = Sql::new(self.merge, part.clone()).anew();
                match self.writer().attempt(self.whole(&anew)).await? {
                    Ok(merged) => Ok(merged),
                    Err(_) => self.careful(&sql, reasons).await,
                }
            }
            Err(_) => self.careful(&sql, reasons).await,
        }
    }

    /// All rows into a table that has none; `None`: it has some.
    async fn all_new(&self, sql: &Sql<'_>) -> Result<Option<Merged>, MergeError> {
        let exact = self.lock(sql).await?;
        let is_empty = match &exact {
            Some(exact) => exact.before == 0 || !self.merge.is_by_key(),
            None => self.writer().number(&sql.is_table_empty()).await? == 1,
        };
        if !is_empty {
            return Ok(None);
        }
        let deleted = self.delete(sql, exact.as_ref()).await?;
        let inserted = self.writer().execute(&sql.insert_all()).await?;
        self.writer().constraints().await?;
        // Not compared with a count from before: another part may find out meanwhile which rows lose.
        let mut merged = Merged {
            tally: Tally::of(Outcome::Inserted, inserted),
            present: inserted,
            deleted,
            ..Merged::default()
        };
        self.check_exact(sql, exact.as_ref(), &mut merged).await?;
        Ok(Some(merged))
    }

    /// All rows at once.
    async fn whole(&self, sql: &Sql<'_>) -> Result<Merged, MergeError> {
        let staged = self.writer().number(&sql.count()).await?;
        let exact = self.lock(sql).await?;
        let deleted = self.delete(sql, exact.as_ref()).await?;
        let mut merged = self.writer().write(sql, staged, Others::Seldom).await?;
        merged.deleted = deleted;
        self.check_exact(sql, exact.as_ref(), &mut merged).await?;
        Ok(merged)
    }

    /// Keeps other writers out where the table is to be exactly the input; readers see what was there
    /// until the end.
    pub(super) async fn lock(&self, sql: &Sql<'_>) -> Result<Option<Exact>, MergeError> {
        if !self.merge.is_exact() {
            return Ok(None);
        }
        let mode = match self.merge.truncates && !self.merge.is_by_key() {
            true => "ACCESS EXCLUSIVE",
            false => "SHARE ROW EXCLUSIVE",
        };
        let lock = format!("LOCK TABLE {} IN {mode} MODE", self.merge.target.table);
        let patience = LOCK_PATIENCE.min(self.lock_wait).as_millis().max(1);
        let try_lock = format!(
            "SAVEPOINT pgrung_lock; SET LOCAL lock_timeout = {patience}; {lock}; RELEASE pgrung_lock"
        );
        let began = Instant::now();
        while let Err(error) = self.client.batch_execute(&try_lock).await {
            let held = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
            if !held {
                return Err(error.into());
            }
            if began.elapsed() >= self.lock_wait {
                return Err(MergeError::Locked {
                    table: self.merge.target.table.clone(),
                    limit: self.lock_wait,
                });
            }
            // Let those through who have queued up behind.
            self.client
                .batch_execute("ROLLBACK TO pgrung_lock; RELEASE pgrung_lock")
                .await?;
            tokio::time::sleep(LOCK_PATIENCE / 2).await;
        }
        self.client
            .batch_execute("SET LOCAL lock_timeout = '30s'")
            .await?;
        let since = Instant::now();
        let before = self.writer().number(&sql.count_table()).await?;
        Ok(Some(Exact { since, before }))
    }

    /// Deletes what the table is not to have any more.
    pub(super) async fn delete(
        &self,
        sql: &Sql<'_>,
        exact: Option<&Exact>,
    ) -> Result<u64, MergeError> {
        let Some(exact) = exact.filter(|exact| exact.before > 0) else {
            return Ok(0);
        };
        let by_key = self.merge.is_by_key();
        let statement = match by_key {
            true => sql.delete_missing(),
            false => sql.delete_all(),
        };
        let deleted = self.writer().execute(&statement).await.map_err(|error| {
            match error {
                // No row of the input is to blame.
                MergeError::Failed(failure) if failure.may_be_a_row(false) => {
                    self.undeletable(failure)
                }
                error => error,
            }
        })?;
        // TRUNCATE does not say how many they were.
        Ok(match self.merge.truncates && !by_key {
            true => exact.before,
            false => deleted,
        })
    }

    /// Whether the table has what the mode promises, and no guard holds.
    pub(super) async fn check_exact(
        &self,
        sql: &Sql<'_>,
        exact: Option<&Exact>,
        merged: &mut Merged,
    ) -> Result<(), MergeError> {
        let Some(Exact { since, before }) = exact else {
            return Ok(());
        };
        let found = self.writer().number(&sql.count_table()).await?;
        if found != merged.present {
            return Err(MergeError::NotExact {
                table: self.merge.target.table.clone(),
                found,
                wanted: merged.present,
            });
        }
        self.merge.guards.shrink(*before, found)?;
        self.merge.guards.delete(merged.deleted, *before)?;
        merged.locked = since.elapsed();
        Ok(())
    }
}

/// A table that is to be exactly the input.
pub struct Exact {
    /// When other writers began to wait.
    pub since: Instant,
    /// Rows that it had.
    pub before: u64,
}
