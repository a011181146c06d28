//! What a merge failed for, where no row of the input is to blame.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::error::MergeError;
use super::sql::Sql;
use super::step::Step;
use crate::retry::Failure;
use crate::target::quote_name;

/// Whether constraint `$3` of table `$2` points to table `$1` from outside.
const POINTS: &str = "
WITH tree AS (SELECT to_regclass($1)::oid AS oid UNION SELECT relid FROM pg_partition_tree(to_regclass($1)))
SELECT EXISTS (SELECT FROM pg_constraint f
               WHERE f.conrelid = to_regclass($2) AND f.conname = $3 AND f.contype = 'f'
                 AND f.confrelid IN (SELECT oid FROM tree) AND f.conrelid NOT IN (SELECT oid FROM tree))
  AS points";

impl Step<'_> {
    /// Whether rows may only be in each other's way: one is to have the unique value that another one
    /// still has. They can be deleted and inserted if nothing is lost by it: nobody points to them, and
    /// the input fills all columns.
    pub(super) async fn may_swap(
        &self,
        sql: &Sql<'_>,
        failure: &Failure,
    ) -> Result<bool, MergeError> {
        let merge = self.merge;
        let unique = [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION];
        let unique = unique
            .iter()
            .any(|code| failure.sqlstate() == Some(code.code()));
        let lossless = unique
            && merge.is_exact()
            && merge.is_by_key()
            && !merge.is_pointed_to
            && !merge.suppresses;
        Ok(lossless && self.writer().number(&sql.count_left_out()).await? == 0)
    }

    /// Whether a foreign key of another table to this one refuses what the table is to be: a deferred
    /// one does so behind the last row, and none of the rows is to blame.
    pub(super) async fn is_pointed_at(&self, failure: &Failure) -> Result<bool, MergeError> {
        let Failure::Server { error, .. } = failure else {
            return Ok(false);
        };
        let is_key = error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION);
        let key = error.as_db_error().filter(|_| is_key);
        let of = key.and_then(|key| key.schema().zip(key.table()).zip(key.constraint()));
        let Some(((schema, table), constraint)) = of.filter(|_| self.merge.is_exact()) else {
            return Ok(false);
        };
        let table = format!("{}.{}", quote_name(schema), quote_name(table));
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.merge.target.table, Type::TEXT),
            (&table, Type::TEXT),
            (&constraint, Type::TEXT),
        ];
        let row = self.client.query_typed_one(POINTS, &parameters);
        Ok(row.await?.get("points"))
    }

    pub(super) fn undeletable(&self, failure: Failure) -> MergeError {
        MergeError::Delete {
            table: self.merge.target.table.clone(),
            failure,
        }
    }
}
