//! What proves at the end that the rows are in the table: it is the one that the load began with,
//! and what others did to it meanwhile took no rows away.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::Error;
use crate::ledger::{Remembered, Standing};
use crate::report::Console;
use crate::target::{Place, Table, TableError};

/// The table when the load began.
#[derive(Clone)]
pub struct Before {
    place: Place,
    /// Rows ever deleted from it, as the server's statistics have it.
    deleted: i64,
}

impl Before {
    /// Notes how `table` stands.
    ///
    /// # Errors
    /// What the server says.
    pub async fn note(client: &Client, table: &Table) -> Result<Self, Error> {
        let now = Place::find(client, &table.quoted()).await;
        let now = now.map_err(Error::server("looking where the table is"))?;
        let place = now.unwrap_or_else(|| Place::from(table));
        let deleted = deleted(client, &place).await?;
        Ok(Before { place, deleted })
    }

    /// Looks whether the table still has its `rows` loaded rows; where it is now.
    ///
    /// # Errors
    /// When it was truncated, or another one has its name, and what the server says.
    pub async fn prove(
        &self,
        client: &Client,
        rows: u64,
        console: &Console,
    ) -> Result<Place, Error> {
        let failed = Error::server("looking whether the rows are in the table");
        let name = &self.place.name;
        let gone = |what: String| Err(Error::Table(TableError::Gone(what)));
        let Some(now) = Place::find(client, name).await.map_err(&failed)? else {
            return gone(format!("table {name} was dropped while it was loaded"));
        };
        let then = Remembered {
            place: self.place.clone(),
            rows,
            finished: false,
            age: None,
        };
        let mut standing = then.standing(client, &now).await.map_err(&failed)?;
        // Its rows were looked for by its name, which may have become another table's meanwhile.
        let later = Place::find(client, name).await.map_err(&failed)?;
        if later.is_none_or(|later| later.oid != now.oid) {
            standing = Standing::Another;
        }
        match standing {
            Standing::Another => gone(format!(
                "table {name} was dropped and made anew, or renamed, while it was loaded: rows that were committed before are in no table of that name"
            )),
            Standing::Relogged => gone(format!(
                "table {name} was made logged or unlogged while it was loaded"
            )),
            Standing::Unseen | Standing::Doubtful => gone(format!(
                "table {name} was truncated or rewritten while it was loaded, and nothing tells this role which"
            )),
            Standing::Missing { found } => gone(truncated(name, found, rows)),
            Standing::Emptied if now.filenode != self.place.filenode => {
                gone(truncated(name, 0, rows))
            }
            // A DELETE sees the rows that it takes: they were there. Whoever works off a queue does
            // so while it is filled.
            Standing::Same | Standing::Renamed | Standing::Moved | Standing::Emptied => {
                let deleted = deleted(client, &now).await? - self.deleted;
                // The statistics come late; an empty table tells too.
                let told = match standing {
                    Standing::Emptied => format!("all rows of {name}"),
                    _ => format!("{deleted} rows of {name}"),
                };
                if deleted > 0 || standing == Standing::Emptied {
                    console.notice(&format!("{told} were deleted while it was loaded"));
                }
                Ok(now)
            }
        }
    }
}

fn truncated(name: &str, found: u64, rows: u64) -> String {
    format!(
        "table {name} was truncated while it was loaded: it holds {found} rows, and {rows} were loaded; empty it and load again with --restart"
    )
}

async fn deleted(client: &Client, place: &Place) -> Result<i64, Error> {
    let sql = "SELECT coalesce(pg_stat_get_tuples_deleted($1), 0) AS deleted";
    let row = client
        .query_typed_one(sql, &[(&place.oid, Type::OID)])
        .await;
    let row = row.map_err(Error::server("reading the statistics of the table"))?;
    Ok(row.get("deleted"))
}
