//! What the ledger knows of the inputs of a run, and what of it the files prove.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_postgres::Transaction;

use super::error::LedgerError;
use super::open::is_empty;
use super::request::{Request, SourceIdentity};
use super::{LedgerSource, span_columns, span_of, spans};
use crate::machine;
use crate::source::{Compared, InputError, compare};
use crate::span::{Known, Span};

/// A comparison of so many bytes takes long enough to be told.
const LONG: u64 = 1 << 30;

/// A source of an import that may be an input of this run: it has its name, or begins as it does.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KnownSource {
    /// Number of the input (0-based).
    pub input: usize,
    pub key: LedgerSource,
    pub name: String,
    pub same_name: bool,
    /// Whether it was read to its end.
    pub finished: bool,
    pub spans: Known,
    /// Why its import is not this one.
    pub misfit: Option<String>,
}

impl KnownSource {
    /// Bytes that are committed.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.end - span.start).sum()
    }

    /// Rows in the table.
    pub fn loaded(&self) -> u64 {
        self.spans.iter().map(|span| span.tally.loaded()).sum()
    }
}

/// All that may be inputs of this run, those of the latest runs first.
pub(super) async fn known_sources(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
) -> Result<Vec<KnownSource>, LedgerError> {
    let names: Vec<&str> = request.sources.iter().map(|it| it.name.as_str()).collect();
    let heads: Vec<i64> = request.sources.iter().filter_map(signed_head).collect();
    let rows = transaction
        .query(
            "SELECT i.import_id, i.target, i.target_oid, i.target_filenode, i.target_unlogged, i.columns, i.reading,
                    s.source, s.name, s.head, s.epoch, s.finished_at IS NOT NULL AS finished
             FROM pgrung.sources s JOIN pgrung.imports i USING (import_id)
             WHERE CASE WHEN $1::text IS NULL THEN i.target_oid = $2 OR i.target = $3 ELSE i.import_id = $1 END
               AND (s.name = ANY ($4) OR s.head = ANY ($5))
             ORDER BY i.run_at DESC, i.import_id, s.source",
            &[
                &request.import_id,
                &request.table.oid,
                &request.target.table,
                &names,
                &heads,
            ],
        )
        .await?;
    let emptied = is_empty(transaction, &request.target.table).await?;
    let mut found: Vec<KnownSource> = Vec::new();
    for (input, source) in request.sources.iter().enumerate() {
        for row in &rows {
            let same_name = row.get::<_, &str>("name") == source.name;
            let head = signed_head(source);
            let same_head = head.is_some() && row.get::<_, Option<i64>>("head") == head;
            // A pipe is another one each time, unless its import has a name.
            let is_it = match head {
                Some(_) => same_name || same_head,
                None => same_name && request.import_id.is_some(),
            };
            if !is_it {
                continue;
            }
            let key = LedgerSource {
                import_id: row.get("import_id"),
                number: row.get("source"),
                epoch: row.get("epoch"),
            };
            found.push(KnownSource {
                input,
                spans: spans_of(transaction, &key, row.get("target_unlogged")).await?,
                key,
                name: row.get("name"),
                same_name,
                finished: row.get("finished"),
                misfit: request.misfit(row),
            });
        }
    }
    for known in found.iter_mut().filter(|it| emptied && it.loaded() > 0) {
        let emptied = || format!("table {} was emptied since", request.target.table);
        known.misfit.get_or_insert_with(emptied);
    }
    Ok(found)
}

/// The bits of a source's head, as the ledger keeps them.
pub(super) fn signed_head(source: &SourceIdentity) -> Option<i64> {
    source.head.map(u64::cast_signed)
}

/// What is committed of a source.
pub(super) async fn spans_of(
    transaction: &Transaction<'_>,
    key: &LedgerSource,
    unlogged: bool,
) -> Result<Known, LedgerError> {
    let sql = format!(
        "SELECT {} FROM {} p WHERE import_id = $1 AND source = $2 ORDER BY start_byte",
        span_columns(),
        spans(unlogged)
    );
    let rows = transaction
        .query(&sql, &[&key.import_id, &key.number])
        .await?;
    Ok(rows.iter().map(span_of).collect())
}

/// What the ledger knows, beside what the file says of it.
pub(super) struct Proof {
    pub known: KnownSource,
    pub found: Result<Compared, InputError>,
}

/// Compares each file with all that is known of it; several at a time.
pub(super) async fn prove(
    request: &Request<'_>,
    known: Vec<KnownSource>,
) -> Result<Vec<Proof>, LedgerError> {
    let proofs = known.into_iter().map(|known| async move {
        let source = &request.sources[known.input];
        if source.head.is_none() {
            // Its reader compares it, as it comes.
            let found = Ok(Compared { whole: false });
            return Ok(Proof { known, found });
        }
        let bytes = known.bytes();
        if bytes >= LONG {
            (request.notify)(&format!(
                "{}: comparing {bytes} bytes with what was loaded by import {}",
                source.name, known.key.import_id
            ));
        }
        let header = request.reading.has_header();
        let columns = request.target.columns.len();
        let (input, options) = (source.input.clone(), request.options.clone());
        let spans: Arc<Vec<Span>> = Arc::new(known.spans.clone());
        let comparing = move || compare(&input, &options, header, columns, &spans);
        let found = tokio::task::spawn_blocking(comparing).await;
        let found = found.unwrap_or(Err(InputError::Reader));
        Ok(Proof { known, found })
    });
    stream::iter(proofs)
        .buffered(machine::cores())
        .try_collect()
        .await
}
