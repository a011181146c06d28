//! Tells whether a table is still the one that an import loads into, and whether its rows are still
//! in it.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::{spans, unsigned};
use crate::target::Place;

/// What a load has put where, as it was noted.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// The table when it was last found to have the rows.
    pub place: Place,
    /// Rows that were loaded into it.
    pub rows: u64,
    /// Whether the import was finished, which proves that its rows were there then.
    pub finished: bool,
    /// Transactions since the last that loaded any, where that is known: only rows at least as old
    /// can be those that were loaded.
    pub age: Option<i32>,
}

/// What has become of the table since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is the same table. Its rows are there, as far as can be told without counting them.
    Same,
    /// The same, by another name or in another schema.
    Renamed,
    /// The same, with other storage into which all rows were taken: VACUUM FULL, CLUSTER.
    Moved,
    /// It holds no row at all.
    Emptied,
    /// It holds fewer rows than were loaded.
    Missing {
        /// Those it holds.
        found: u64,
    },
    /// It was truncated or rewritten, and holds as many rows, but not from then.
    Doubtful,
    /// It was truncated or rewritten, and this role may not read it to tell which.
    Unseen,
    /// It was made logged or unlogged.
    Relogged,
    /// It is another table: the one that was loaded was dropped, or has given its name away.
    Another,
}

impl Remembered {
    /// What the ledger has of an import; `None` if it does not know it.
    pub async fn of(
        client: &impl GenericClient,
        import_id: &str,
    ) -> Result<Option<Self>, tokio_postgres::Error> {
        let sql = "SELECT target, target_oid, target_filenode, target_unlogged, finished_at IS NOT NULL AS finished
                   FROM pgrung.imports WHERE import_id = $1";
        let Some(import) = client
            .query_typed_opt(sql, &[(&import_id, Type::TEXT)])
            .await?
        else {
            return Ok(None);
        };
        let unlogged = import.get("target_unlogged");
        let sql = format!(
            "SELECT coalesce(sum(loaded), 0)::bigint AS rows, min(age(xmin)) AS age
             FROM {} WHERE import_id = $1",
            spans(unlogged)
        );
        let spans = client
            .query_typed_one(&sql, &[(&import_id, Type::TEXT)])
            .await?;
        let finished: bool = import.get("finished");
        Ok(Some(Remembered {
            place: Place {
                name: import.get("target"),
                oid: import.get("target_oid"),
                filenode: import.get("target_filenode"),
                unlogged,
            },
            rows: unsigned(spans.get("rows")),
            finished,
            age: spans.get("age"),
        }))
    }

    /// What has become of the table, which is now at `now`. Rows are counted only where it has other
    /// storage.
    pub async fn standing(
        &self,
        client: &impl GenericClient,
        now: &Place,
    ) -> Result<Standing, tokio_postgres::Error> {
        let then = &self.place;
        if now.oid != then.oid {
            return Ok(Standing::Another);
        }
        if now.unlogged != then.unlogged {
            return Ok(Standing::Relogged);
        }
        let moved = now.filenode != then.filenode;
        let all_there = match (moved, now.name == then.name) {
            (true, _) => Standing::Moved,
            (false, true) => Standing::Same,
            (false, false) => Standing::Renamed,
        };
        if self.rows == 0 {
            return Ok(all_there);
        }
        if !may_see_all(client, now).await? {
            // What this role does not see is no sign that it is not there.
            return Ok(if moved { Standing::Unseen } else { all_there });
        }
        if is_empty(client, now).await? {
            return Ok(Standing::Emptied);
        }
        if !moved {
            return Ok(all_there);
        }
        let (found, old) = self.count(client, now).await?;
        Ok(match self.rows {
            rows if found < rows => Standing::Missing { found },
            rows if old < rows => Standing::Doubtful,
            _ => all_there,
        })
    }

    /// Rows of the table, and those of them that are old enough to be those that were loaded.
    async fn count(
        &self,
        client: &impl GenericClient,
        now: &Place,
    ) -> Result<(u64, u64), tokio_postgres::Error> {
        // VACUUM FULL and CLUSTER keep the transaction of a row; foreign tables have none.
        let old = match self.age.filter(|_| now.filenode.is_some()) {
            Some(age) => format!("count(*) FILTER (WHERE age(xmin) >= {age})"),
            None => "count(*)".to_string(),
        };
        let sql = format!("SELECT count(*) AS found, {old} AS old FROM {}", now.name);
        let row = client.query_typed_one(&sql, &[]).await?;
        Ok((unsigned(row.get("found")), unsigned(row.get("old"))))
    }
}

/// Whether the table holds no row at all; false where this role may not see them.
pub(super) async fn is_empty(
    client: &impl GenericClient,
    now: &Place,
) -> Result<bool, tokio_postgres::Error> {
    if !may_see_all(client, now).await? {
        return Ok(false);
    }
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {}) AS empty", now.name);
    Ok(client.query_typed_one(&sql, &[]).await?.get("empty"))
}

/// Whether this role sees every row of the table: it may read, and no policy hides any from it.
async fn may_see_all(
    client: &impl GenericClient,
    now: &Place,
) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT coalesce(has_table_privilege($1::oid, 'SELECT') AND NOT row_security_active($1::oid), false) AS sees";
    Ok(client
        .query_typed_one(sql, &[(&now.oid, Type::OID)])
        .await?
        .get("sees"))
}
