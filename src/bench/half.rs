//! A table that is half full: every other row of the reference by its key, with the other columns of
//! the row behind it, so that there is something to update.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{Arena, BenchSettings};
use crate::error::Error;
use crate::job::SettingsError;
use crate::merge::Mode;
use crate::target::quote_name;

/// The columns of the primary key, and the others that are written, quoted, in one order.
const COLUMNS: &str = "
SELECT a.attname::text AS name, coalesce(a.attnum = ANY (i.indkey), false) AS is_key
FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum";

/// Whether the rungs can be compared so.
///
/// # Errors
/// When they cannot.
pub fn check(bench: &BenchSettings) -> Result<(), SettingsError> {
    let name = bench.mode.name();
    match bench.mode {
        Mode::Append => Ok(()),
        Mode::Ignore | Mode::Upsert if bench.workers == 1 => Ok(()),
        Mode::Ignore | Mode::Upsert => Err(SettingsError(format!(
            "--mode {name}: batches are merged in the order of the input, by one worker"
        ))),
        Mode::Replace | Mode::Sync => Err(SettingsError(format!(
            "--mode {name} merges all rows at once, which is the same for every rung; the rungs are compared by append, ignore and upsert"
        ))),
    }
}

/// Makes the rows that each run finds in its table, out of those of `reference`.
///
/// # Errors
/// When the table has no primary key, or does not take rows that are mixed so.
pub async fn halve(arena: &Arena, reference: &str) -> Result<(), Error> {
    let (key, others) = columns(&arena.client, reference).await?;
    if key.is_empty() {
        return Err(SettingsError(
            "--mode: the table has no primary key by which its rows are merged".to_string(),
        )
        .into());
    }
    let keys = key.join(", ");
    let shifted = others
        .iter()
        .map(|name| format!("coalesce(lead({name}) OVER w, first_value({name}) OVER w)"));
    let values: Vec<String> = key.iter().cloned().chain(shifted).collect();
    let names: Vec<String> = key.iter().chain(&others).cloned().collect();
    let (half, names) = (half(arena), names.join(", "));
    arena
        .sql(&format!(
            "CREATE TABLE {half} (LIKE {} INCLUDING ALL);
             INSERT INTO {half} ({names}) OVERRIDING SYSTEM VALUE
             SELECT {names} FROM (SELECT {}, row_number() OVER w AS pgrung_place FROM {} WINDOW w AS (ORDER BY {keys})) AS mixed ({names}, pgrung_place)
             WHERE pgrung_place % 2 = 0",
            arena.like, values.join(", "), reference,
        ))
        .await
}

/// Puts those rows into `table`.
pub async fn fill(arena: &Arena, table: &str) -> Result<(), Error> {
    let (key, others) = columns(&arena.client, table).await?;
    let names = key.into_iter().chain(others).collect::<Vec<_>>().join(", ");
    arena
        .sql(&format!(
            "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {}; ANALYZE {table}",
            half(arena)
        ))
        .await
}

/// The name of the table that has them.
pub fn half(arena: &Arena) -> String {
    format!("{}.\"half\"", arena.schema)
}

async fn columns(client: &Client, table: &str) -> Result<(Vec<String>, Vec<String>), Error> {
    let rows = client.query_typed(COLUMNS, &[(&table, Type::TEXT)]).await;
    let rows = rows.map_err(Error::server("setting up the bench"))?;
    let (mut key, mut others) = (Vec::new(), Vec::new());
    for row in rows {
        let name = quote_name(row.get("name"));
        match row.get("is_key") {
            true => key.push(name),
            false => others.push(name),
        }
    }
    Ok((key, others))
}
