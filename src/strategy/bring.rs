//! Runs a statement that brings rows, and counts what the server says became of them.

use futures::TryStreamExt;
use tokio_postgres::{Client, Error, Statement};

use crate::outcome::{Outcome, Tally};
use crate::target::Target;

/// Brings `rows` rows; `many`: by the statement for many.
pub(super) async fn bring<P>(
    client: &Client,
    statement: &Statement,
    parameters: impl IntoIterator<Item = P, IntoIter: ExactSizeIterator>,
    target: &Target,
    (rows, many): (usize, bool),
) -> Result<Tally, Error>
where
    P: tokio_postgres::types::BorrowToSql,
{
    let Some(upsert) = &target.upsert else {
        let count = client.execute_raw(statement, parameters).await?;
        return Ok(Tally::of(Outcome::Inserted, count));
    };
    let answer = client.query_raw(statement, parameters).await?;
    let answer: Vec<tokio_postgres::Row> = answer.try_collect().await?;
    let first = answer.first();
    if !many {
        return Ok(upsert.tally_of_one(first.map(|row| row.get("new"))));
    }
    let number = |name| first.map_or(0, |row| row.get::<_, i64>(name).cast_unsigned());
    Ok(upsert.tally_of_many(
        rows as u64,
        number("new"),
        number("updated"),
        number("best"),
    ))
}
