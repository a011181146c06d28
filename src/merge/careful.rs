//! A merge of rows of which some are bad: piece by piece, each behind a savepoint, until the bad
//! ones have failed alone.

use tokio_postgres::Client;

use super::error::MergeError;
use super::part::Merged;
use super::sql::{Sql, order};
use super::step::Step;
use super::writer::Others;
use crate::outcome::Outcome;
use crate::report::Reasons;
use crate::retry::Failure;
use crate::span::Position;
use crate::target::{Order, STATE, index_staged, quote_name};

/// Rows of one piece at most, and right after a bad one at least.
const PIECE: (i64, i64) = (65_536, 16);

impl Step<'_> {
    /// Merges the rows of `sql`, those that are bad aside.
    pub(super) async fn careful(
        &self,
        sql: &Sql<'_>,
        reasons: &Reasons,
    ) -> Result<Merged, MergeError> {
        let staging = &self.merge.staging;
        self.client.batch_execute(&index_staged(staging)).await?;
        let exact = self.lock(sql).await?;
        let mut deleted = self.delete(sql, exact.as_ref()).await?;
        let mut pass = Pass {
            step: self,
            sql,
            reasons,
            total: Merged::default(),
            waiting: Vec::new(),
        };
        pass.all().await?;
        pass.second_chance().await?;
        let Pass { mut total, .. } = pass;
        if self.merge.is_by_key() {
            // Rows of the table that all records of their key have left.
            deleted += self.delete(sql, exact.as_ref()).await?;
        }
        total.deleted = deleted;
        self.check_exact(sql, exact.as_ref(), &mut total).await?;
        Ok(total)
    }
}

/// One way through all rows.
struct Pass<'a> {
    step: &'a Step<'a>,
    sql: &'a Sql<'a>,
    reasons: &'a Reasons,
    total: Merged,
    /// Rows that wait for others: a foreign key has refused them.
    waiting: Vec<(i64, Failure)>,
}

impl Pass<'_> {
    fn client(&self) -> &Client {
        self.step.client
    }

    async fn all(&mut self) -> Result<(), MergeError> {
        let (most, least) = PIECE;
        let (mut behind, mut piece) = (i64::MIN, most);
        while let Some((last, rows)) = self.next(behind, piece).await? {
            let piece_rows = format!("{o} > {behind} AND {o} <= {last}", o = order("s"));
            match self.attempt(&self.sql.and(&piece_rows), rows).await? {
                None => {
                    (behind, piece) = (last, (piece * 2).clamp(least, most));
                    continue;
                }
                Some(_) if rows > 1 => piece = rows / 2,
                Some(failure) => {
                    self.judge(last, failure).await?;
                    (behind, piece) = (last, least);
                }
            }
        }
        Ok(())
    }

    /// The next rows behind an order: the last of them, and how many they are.
    async fn next(&self, behind: i64, most: i64) -> Result<Option<(i64, i64)>, MergeError> {
        let sql = self.sql.and(&format!("{} > {behind}", order("s")));
        let sql = format!(
            "SELECT max(o) AS last, count(*) AS rows FROM ({}) piece",
            sql.orders(most)
        );
        let row = self.client().query_typed_one(&sql, &[]).await?;
        Ok(row
            .get::<_, Option<i64>>("last")
            .map(|last| (last, row.get("rows"))))
    }

    /// Merges some rows behind a savepoint; what one of them may be to blame for, if it fails.
    async fn attempt(&mut self, sql: &Sql<'_>, rows: i64) -> Result<Option<Failure>, MergeError> {
        let writer = self.step.writer();
        let write = writer.write(sql, rows.cast_unsigned(), Others::Seldom);
        Ok(match writer.attempt(write).await? {
            Ok(merged) => {
                self.total += merged;
                None
            }
            Err(failure) => Some(failure),
        })
    }

    /// Puts a row aside that has failed alone, and lets the next best record of its key try.
    async fn judge(&mut self, bad: i64, failure: Failure) -> Result<(), MergeError> {
        let mut bad = Some((bad, failure));
        while let Some((row, failure)) = bad.take() {
            // What fails with any row fails with none.
            if !failure.names_a_value()
                && let Some(failure) = self.attempt(&self.sql.with("false"), 0).await?
            {
                return Err(failure.into());
            }
            if failure.waits_for_a_row() {
                self.waiting.push((row, failure));
                return Ok(());
            }
            bad = self.reject(row, &failure).await?;
        }
        Ok(())
    }

    /// Puts a row aside; the record of its key that comes next and is bad as well, if it is.
    async fn reject(
        &mut self,
        row: i64,
        failure: &Failure,
    ) -> Result<Option<(i64, Failure)>, MergeError> {
        let refusal = failure.refusal();
        let Step {
            merge,
            client,
            ledger,
            sources,
            ..
        } = *self.step;
        let order = Order(row);
        let stored = ledger.reject_staged(client, &merge.staging, order, &refusal);
        let line = stored.await?;
        let column = refusal.column.as_deref();
        let place = || {
            let source = usize::try_from(order.source());
            let source = source.ok().and_then(|source| sources.get(source));
            let position = Position {
                record: order.record(),
                line,
                ..Position::START
            };
            format!("{}, {position}", source.map_or("", |name| name))
        };
        self.reasons
            .count(&refusal.sqlstate, column, &refusal.message, place);
        self.total.tally = self.total.tally.and(Outcome::Rejected, 1);
        let next = match merge.key {
            Some(_) => self.next_of_key(row).await?,
            None => None,
        };
        let o = quote_name(Order::COLUMN);
        let remove = format!("DELETE FROM {} WHERE {o} = {row}", merge.staging);
        client.batch_execute(&remove).await?;
        let Some(next) = next else { return Ok(None) };
        let alone = self.sql.with(&format!("s.{o} = {next}"));
        match self.attempt(&alone, 1).await? {
            None => {
                self.done(next).await?;
                Ok(None)
            }
            Some(failure) => Ok(Some((next, failure))),
        }
    }

    /// Notes that a row is merged, though it may have lost to another one before.
    async fn done(&self, row: i64) -> Result<(), MergeError> {
        let (o, state) = (quote_name(Order::COLUMN), quote_name(STATE));
        let staging = &self.step.merge.staging;
        let done = format!("UPDATE {staging} SET {state} = 'd' WHERE {o} = {row}");
        Ok(self.client().batch_execute(&done).await?)
    }

    /// The best of the records that have lost to this one.
    async fn next_of_key(&self, row: i64) -> Result<Option<i64>, MergeError> {
        let staging = &self.step.merge.staging;
        let sql = format!(
            "SELECT {s} AS next FROM {staging} s JOIN {staging} bad ON {}
             WHERE {} = {row} AND {s} <> {row} AND s.{} = 'l' ORDER BY {} LIMIT 1",
            self.sql.same_key("s", "bad"),
            order("bad"),
            quote_name(STATE),
            self.sql.best_first(),
            s = order("s"),
        );
        let next = self.client().query_typed_opt(&sql, &[]).await?;
        Ok(next.map(|row| row.get("next")))
    }

    /// Tries rows again that a foreign key refused, until no more of them get in; the others are put
    /// aside.
    async fn second_chance(&mut self) -> Result<(), MergeError> {
        // Chains of rows point forwards or backwards, so every other pass goes the other way.
        loop {
            let mut again = std::mem::take(&mut self.waiting);
            again.reverse();
            let before = again.len();
            for (row, _) in again {
                let alone = self.sql.with(&format!("{} = {row}", order("s")));
                match self.attempt(&alone, 1).await? {
                    Some(failure) => self.waiting.push((row, failure)),
                    None => self.done(row).await?,
                }
            }
            if self.waiting.len() == before {
                break;
            }
        }
        while let Some((row, failure)) = self.waiting.pop() {
            if self.step.is_pointed_at(&failure).await? {
                return Err(self.step.undeletable(failure));
            }
            if let Some((next, failure)) = self.reject(row, &failure).await? {
                self.judge(next, failure).await?;
            }
        }
        Ok(())
    }
}
