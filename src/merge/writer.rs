//! Brings staged rows into their table, and counts what became of them by what the server says.

use tokio_postgres::Client;

use super::error::MergeError;
use super::part::Merged;
use super::sql::Sql;
use super::{Merge, Mode};
use crate::outcome::{Outcome, Tally};
use crate::retry::Failure;

/// What to do about other writers, who may bring a key while its row is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Hope that there are none; if one was there, do it again, prepared.
    Seldom,
    /// Hope that there are none; if one was there, that is an error.
    None,
    /// Be prepared, which takes twice the time.
    There,
}

/// Writes in the caller's transaction.
pub(super) struct Writer<'a> {
    pub merge: &'a Merge,
    pub client: &'a Client,
}

impl Writer<'_> {
    /// Brings `staged` rows, of each key one, into the table; `others` write it too.
    pub(super) async fn write(
        &self,
        sql: &Sql<'_>,
        staged: u64,
        others: Others,
    ) -> Result<Merged, MergeError> {
        let Writer { merge, client } = self;
        if !merge.is_by_key() {
            let inserted = self.execute(&sql.insert_all()).await?;
            self.constraints().await?;
            let suppressed = staged.saturating_sub(inserted);
            if inserted > staged || suppressed > 0 && !merge.suppresses {
                return Err(self.miscounted(staged, inserted));
            }
            return Ok(Merged {
                tally: Tally::of(Outcome::Inserted, inserted).and(Outcome::Suppressed, suppressed),
                present: inserted,
                ..Merged::default()
            });
        }
        let expected = match merge.suppresses || merge.newer.is_some() {
            true => Some(client.query_typed_one(&sql.expect(), &[]).await?),
            false => None,
        };
        let expected = |column| {
            expected
                .as_ref()
                .map_or(0, |row| row.get::<_, i64>(column).cast_unsigned())
        };
        let (updated, inserted) = self.bring_in(sql, others).await?;
        self.constraints().await?;
        let kept_out = |expected: u64, done: u64| match merge.suppresses {
            true => expected.saturating_sub(done),
            false => 0,
        };
        let not_updated = match merge.mode {
            Mode::Ignore => 0,
            _ => kept_out(expected("other"), updated),
        };
        let not_inserted = kept_out(expected("missing"), inserted);
        let suppressed = not_inserted + not_updated;
        let stale = match &merge.newer {
            Some(_) => expected("stale"),
            None => 0,
        };
        let rest = staged.checked_sub(inserted + updated + suppressed + stale);
        let rest = rest.ok_or_else(|| self.miscounted(staged, inserted + updated))?;
        let rest_is = match merge.mode {
            Mode::Ignore => Outcome::Ignored,
            _ => Outcome::Unchanged,
        };
        let tally = Tally::of(Outcome::Inserted, inserted)
            .and(Outcome::Updated, updated)
            .and(Outcome::Suppressed, suppressed)
            .and(Outcome::Superseded, stale)
            .and(rest_is, rest);
        Ok(Merged {
            tally,
            present: staged - not_inserted,
            ..Merged::default()
        })
    }

    /// Makes the rows that are there as they are staged, and inserts those that are not there; how many
    /// of each.
    pub(super) async fn bring_in(
        &self,
        sql: &Sql<'_>,
        others: Others,
    ) -> Result<(u64, u64), MergeError> {
        let update = sql.update().filter(|_| self.merge.mode != Mode::Ignore);
        let careful = sql.insert_missing_beside_others();
        if careful.is_none() {
            // Nobody else writes.
            let updated = match &update {
                Some(update) => self.execute(update).await?,
                None => 0,
            };
            let inserted = self.execute(&sql.insert_missing()).await?;
            return Ok(match sql.is_anew() {
                true => (updated, inserted.saturating_sub(updated)),
                false => (updated, inserted),
            });
        }
        // With one look at the table: a row that another writer brings between two would be neither
        // updated nor inserted. To be prepared for one takes twice the time, and one seldom comes.
        let both = |insert: &str| {
            match &update {
            Some(update) => format!(
                "WITH updated AS ({update} RETURNING 1), inserted AS ({insert} RETURNING 1)
                 SELECT (SELECT count(*) FROM updated) AS updated, (SELECT count(*) FROM inserted) AS inserted"
            ),
            None => format!(
                "WITH inserted AS ({insert} RETURNING 1) SELECT 0::bigint AS updated, count(*) AS inserted FROM inserted"
            ),
        }
        };
        let ask = async |insert: &str| -> Result<(u64, u64), MergeError> {
            let row = self.client.query_typed_one(&both(insert), &[]).await?;
            let number = |name| row.get::<_, i64>(name).cast_unsigned();
            Ok((number("updated"), number("inserted")))
        };
        let careful = careful.unwrap_or_default();
        if let Some(merge) = sql.merge_in().filter(|_| self.by_merge()) {
            match others {
                Others::None => return self.merge_in(sql, &merge).await,
                Others::Seldom => {
                    return match self.attempt(self.merge_in(sql, &merge)).await? {
                        Ok(counts) => Ok(counts),
                        Err(_) => ask(&careful).await,
                    };
                }
                Others::There => {}
            }
        }
        match others {
            Others::None => ask(&sql.insert_missing()).await,
            Others::There => ask(&careful).await,
            Others::Seldom => match self.attempt(ask(&sql.insert_missing())).await? {
                Ok(counts) => Ok(counts),
                Err(_) => ask(&careful).await,
            },
        }
    }

    /// Whether MERGE does what is to be done.
    fn by_merge(&self) -> bool {
        self.merge.by_merge && self.merge.mode == Mode::Upsert
    }

    /// Brings rows in by `merge`; how many are updated, and how many inserted. (Its own count is that of
    /// both; the server tells them apart from version 17 on.)
    async fn merge_in(&self, sql: &Sql<'_>, merge: &str) -> Result<(u64, u64), MergeError> {
        let before = self.number(&sql.count_inserted()).await?;
        let both = self.execute(merge).await?;
        let inserted = self.number(&sql.count_inserted()).await? - before;
        let updated = both.checked_sub(inserted);
        let updated = updated.ok_or_else(|| self.miscounted(both, inserted))?;
        Ok((updated, inserted))
    }

    /// Does `work` behind a savepoint; what a row may be to blame for, if it fails.
    pub(super) async fn attempt<T>(
        &self,
        work: impl Future<Output = Result<T, MergeError>>,
    ) -> Result<Result<T, Failure>, MergeError> {
        self.client.batch_execute("SAVEPOINT pgrung_try").await?;
        match work.await {
            Ok(done) => {
                self.client.batch_execute("RELEASE pgrung_try").await?;
                Ok(Ok(done))
            }
            Err(MergeError::Failed(failure)) if failure.may_be_a_row(false) => {
                let back = "ROLLBACK TO pgrung_try; RELEASE pgrung_try";
                self.client.batch_execute(back).await?;
                Ok(Err(failure))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn execute(&self, sql: &str) -> Result<u64, MergeError> {
        Ok(self.client.execute_typed(sql, &[]).await?)
    }

    pub(super) async fn constraints(&self) -> Result<(), MergeError> {
        if self.merge.deferrable {
            let sql = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";
            self.client.batch_execute(sql).await?;
        }
        Ok(())
    }

    /// The one number, `rows`, that a query answers.
    pub(super) async fn number(&self, sql: &str) -> Result<u64, MergeError> {
        let row = self.client.query_typed_one(sql, &[]).await?;
        Ok(row.get::<_, i64>("rows").cast_unsigned())
    }

    pub(super) fn miscounted(&self, staged: u64, done: u64) -> MergeError {
        MergeError::Count {
            table: self.merge.target.table.clone(),
            staged,
            done,
        }
    }
}
