//! Compacts spans that follow each other without a gap, so that the ledger stays small however many
//! batches a source had.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};

use super::{
    IMPORT_LOCK, Ledger, LedgerSource, begin, outcome_columns, signed, span_columns, span_of,
};
use crate::outcome::{Outcome, Tally};
use crate::source::join;
use crate::span::Span;

/// Bytes of a compacted span at most: how exactly a change in a file can be placed, and one row of the
/// ledger for so much of it.
const COMPACTED_BYTES: u64 = 4 << 20;

impl Ledger {
    /// Compacts the spans of this run's sources. Waits for batches under way and keeps new ones
    /// waiting meanwhile: a batch whose commit is in doubt must find its span, whole or compacted.
    pub async fn compact(&self, client: &mut Client) -> Result<(), tokio_postgres::Error> {
        let transaction = begin(client).await?;
        transaction
            .batch_execute("SET LOCAL synchronous_commit = off")
            .await?;
        self.compact_in(&transaction).await?;
        transaction.commit().await
    }

    /// As [`Ledger::compact`], in a transaction of the caller's.
    pub(super) async fn compact_in(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        let mut imports = self.keys().0;
        imports.sort_unstable();
        imports.dedup();
        for import_id in imports {
            // Not the row itself: shared locks of new batches would pass by a waiting exclusive one.
            transaction
                .execute(
                    &format!("SELECT pg_advisory_xact_lock({IMPORT_LOCK}, hashtext($1))"),
                    &[&import_id],
                )
                .await?;
        }
        for source in &self.sources {
            if source.is_ours(transaction).await? {
                self.compact_source(transaction, source).await?;
            }
        }
        Ok(())
    }

    async fn compact_source(
        &self,
        transaction: &Transaction<'_>,
        source: &LedgerSource,
    ) -> Result<(), tokio_postgres::Error> {
        let key: [&(dyn ToSql + Sync); 2] = [&source.import_id, &source.number];
        let small = signed(COMPACTED_BYTES);
        let sql = format!(
            "SELECT {} FROM {} p WHERE import_id = $1 AND source = $2 AND end_byte - start_byte < $3
             ORDER BY start_byte",
            span_columns(),
            self.spans()
        );
        let rows = transaction.query(&sql, &[key[0], key[1], &small]).await?;
        let spans: Vec<Span> = rows.iter().map(span_of).collect();
        let (gone, compacted) = compacted(&spans, COMPACTED_BYTES);
        let gone: Vec<i64> = gone.iter().map(|span| signed(span.start)).collect();
        let delete = format!(
            "DELETE FROM {} WHERE import_id = $1 AND source = $2 AND start_byte = ANY ($3)",
            self.spans()
        );
        transaction
            .execute(&delete, &[key[0], key[1], &gone])
            .await?;
        let column = |value: fn(&Span) -> u64| -> Vec<i64> {
            compacted
                .iter()
                .map(|span| value(span).cast_signed())
                .collect()
        };
        let mut columns = vec![
            column(|span| span.start),
            column(|span| span.end),
            column(|span| span.first_record),
            column(|span| span.records),
            column(|span| span.lines),
            column(|span| span.checksum.unwrap_or_default()),
        ];
        let tally = |outcome| {
            compacted
                .iter()
                .map(move |span| signed(span.tally[outcome]))
        };
        columns.extend(Outcome::in_ledger().map(|(outcome, _)| tally(outcome).collect()));
        let arrays: Vec<String> = (3..columns.len() + 3)
            .map(|number| format!("${number}::bigint[]"))
            .collect();
        let insert = format!(
            "INSERT INTO {} (import_id, source, start_byte, end_byte, first_record, records, lines, checksum, {})
             SELECT $1, $2, * FROM unnest({})",
            self.spans(),
            outcome_columns(|_, column| column.to_string()),
            arrays.join(", "),
        );
        let mut parameters = key.to_vec();
        parameters.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
        transaction.execute(&insert, &parameters).await?;
        Ok(())
    }
}

/// Those of `spans`, given in their order, that can be compacted with a neighbour to `most` bytes at
/// most, and what they become.
fn compacted(spans: &[Span], most: u64) -> (Vec<&Span>, Vec<Span>) {
    let mut runs: Vec<(Vec<&Span>, Span)> = Vec::new();
    for span in spans {
        let joined = runs.last().and_then(|(_, run)| joined(run, span, most));
        match (runs.last_mut(), joined) {
            (Some((parts, run)), Some(joined)) => {
                parts.push(span);
                *run = joined;
            }
            _ => runs.push((vec![span], span.clone())),
        }
    }
    runs.retain(|(parts, _)| parts.len() > 1);
    let (parts, compacted): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    (parts.concat(), compacted)
}

/// Both as one, if the second follows the first and neither size nor a missing checksum forbids.
fn joined(first: &Span, second: &Span, most: u64) -> Option<Span> {
    let length = second.end - second.start;
    let fits = first.end == second.start && second.end - first.start <= most;
    let checksum = join(first.checksum?, second.checksum?, length);
    fits.then(|| Span {
        end: second.end,
        records: first.records + second.records,
        lines: first.lines + second.lines,
        tally: Outcome::in_ledger().fold(Tally::default(), |tally, (outcome, _)| {
            tally.and(outcome, first.tally[outcome] + second.tally[outcome])
        }),
        checksum: Some(checksum),
        ..*first
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::checksum;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn compacted_spans_cover_what_their_parts_did_and_have_its_checksum(
            pieces in prop::collection::vec((1usize..2_000, prop::bool::weighted(0.8)), 1..12),
        ) {
            let total = pieces.iter().map(|(length, _)| length).sum::<usize>();
            let bytes: Vec<u8> = (0..total).map(|index| (index % 251) as u8).collect();
            let (mut at, mut record, mut spans) = (0, 1, Vec::new());
            for (length, committed) in pieces {
                let span = Span {
                    start: at as u64,
                    end: (at + length) as u64,
                    first_record: record,
                    records: 3,
                    lines: 4,
                    tally: Tally::of(Outcome::Inserted, 2).and(Outcome::Rejected, 1),
                    checksum: Some(checksum(&bytes[at..at + length])),
                };
                at += length;
                record += 3;
                if committed {
                    spans.push(span);
                }
            }
            let (gone, compacted) = compacted(&spans, 4096);
            for span in &compacted {
                let parts: Vec<_> = gone
                    .iter()
                    .filter(|part| span.start <= part.start && part.end <= span.end)
                    .collect();
                prop_assert!(parts.len() > 1);
                prop_assert!(span.end - span.start <= 4096);
                prop_assert_eq!(span.end - span.start, parts.iter().map(|part| part.end - part.start).sum::<u64>());
                prop_assert_eq!(span.first_record, parts[0].first_record);
                prop_assert_eq!((span.records, span.lines), (3 * parts.len() as u64, 4 * parts.len() as u64));
                prop_assert_eq!(span.tally[Outcome::Inserted], 2 * parts.len() as u64);
                prop_assert_eq!(span.tally[Outcome::Rejected], parts.len() as u64);
                let range = span.start as usize..span.end as usize;
                prop_assert_eq!(span.checksum, Some(checksum(&bytes[range])));
            }
            // Nothing is left that could be compacted.
            let mut rest: Vec<Span> = spans.iter().filter(|span| !gone.contains(span)).cloned().collect();
            rest.extend(compacted.clone());
            rest.sort_by_key(|span| span.start);
            for pair in rest.windows(2) {
                prop_assert!(joined(&pair[0], &pair[1], 4096).is_none());
            }
            prop_assert_eq!(rest.iter().map(|span| span.records).sum::<u64>(), 3 * spans.len() as u64);
        }
    }
}
