//! What the ledger knows of the inputs of a run, and what of it the files prove.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_postgres::Transaction;

use super::error::LedgerError;
use super::request::{Request, SourceIdentity};
use super::standing::{Remembered, Standing, is_empty};
use super::{LedgerSource, span_columns, span_of, spans};
use crate::machine;
use crate::outcome::{Outcome, Tally};
use crate::source::{Compared, HEAD, InputError, compare};
use crate::span::{Known, Span};
use crate::target::Place;

/// A comparison of so many bytes takes long enough to be told.
const LONG: u64 = 1 << 30;

/// Inputs that are few enough to compare each with what was loaded under the name of another.
const FEW: usize = 16;

/// A source of an import that may be an input of this run: it has its name, or begins as it does.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KnownSource {
    /// Number of the input (0-based).
    pub input: usize,
    pub key: LedgerSource,
    pub name: String,
    pub same_name: bool,
    /// Whether it has the name or begins alike; if not, it has the name of another input, and may be
    /// this one if that is another file now.
    pub alike: bool,
    /// Whether it was read to its end.
    pub finished: bool,
    pub spans: Known,
    /// Why its import is not this one.
    pub misfit: Option<String>,
    /// Why its rows, which were all there once, are in no table any more: it loads nothing twice to
    /// load it again.
    pub gone: Option<String>,
}

impl KnownSource {
    /// Whether the other one is the same source for the same input.
    pub fn is_source(&self, other: &Self) -> bool {
        let which = |it: &Self| (it.input, it.key.import_id.clone(), it.key.number);
        which(self) == which(other)
    }

    /// Whether the ledger knows the same of both, whichever run loads it.
    pub fn is_as(&self, other: &Self) -> bool {
        let LedgerSource { epoch, .. } = self.key;
        let mut other = other.clone();
        other.key.epoch = epoch;
        *self == other
    }

    /// Bytes that are committed.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.end - span.start).sum()
    }

    /// Rows in the table, and those that a trigger kept out of it, which may be elsewhere.
    pub fn stored(&self) -> u64 {
        let stored = |tally: Tally| tally.loaded() + tally[Outcome::Suppressed];
        self.spans.iter().map(|span| stored(span.tally)).sum()
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
            "SELECT i.import_id, i.target_unlogged, i.columns, i.maps, i.merging, i.reading,
                    s.source, s.name, s.heads, s.epoch, s.finished_at IS NOT NULL AS finished
             FROM pgrung.sources s JOIN pgrung.imports i USING (import_id)
             WHERE (i.target_oid = $2 OR i.target = $3 OR i.import_id = $1)
               AND (i.finished_at IS NULL OR i.mode = 'append') AND i.replaced_at IS NULL
               AND i.merging IS NOT DISTINCT FROM $6
               AND (s.name = ANY ($4) OR s.heads && $5)
             ORDER BY i.started_at DESC, i.import_id, s.source",
            &[
                &request.import_id,
                &request.table.oid,
                &request.target.table,
                &names,
                &heads,
                &request.merging,
            ],
        )
        .await?;
    let mut imports: HashMap<String, Kept> = HashMap::new();
    let mut found = Vec::new();
    for (input, source) in request.sources.iter().enumerate() {
        for row in &rows {
            let same_name = row.get::<_, &str>("name") == source.name;
            let head = signed_head(source);
            let import_id: String = row.get("import_id");
            // A pipe is another one each time, unless its import has a name.
            let alike = match head {
                Some(head) => same_name || row.get::<_, Vec<i64>>("heads").contains(&head),
                None => same_name && request.import_id.as_ref() == Some(&import_id),
            };
            // Its name is another input's.
            let perhaps = head.is_some() && names.len() <= FEW && names.contains(&row.get("name"));
            if !alike && !perhaps {
                continue;
            }
            let kept = match imports.get(&import_id) {
                Some(kept) => kept.clone(),
                None => kept(transaction, request, &import_id).await?,
            };
            imports.insert(import_id.clone(), kept.clone());
            let (misfit, gone) = match kept {
                Kept::Yes => (request.misfit(row), None),
                Kept::No(why) => (Some(why), None),
                Kept::Gone(why) => (None, Some(why)),
                Kept::Elsewhere => continue,
            };
            let key = LedgerSource {
                import_id,
                number: row.get("source"),
                epoch: row.get("epoch"),
            };
            let spans = spans_of(transaction, &key, row.get("target_unlogged")).await?;
            // One that is larger than a head is known by that.
            let is_small = spans.last().is_some_and(|span| span.end <= HEAD as u64);
            if !alike && !is_small {
                continue;
            }
            found.push(KnownSource {
                input,
                spans,
                key,
                alike,
                name: row.get("name"),
                same_name,
                finished: row.get("finished"),
                misfit,
                gone,
            });
        }
    }
    Ok(found)
}

/// Whether the table still has the rows that an import loaded.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Yes,
    /// And nothing tells what became of them.
    No(String),
    /// They are gone with all that the import did: somebody has made room for others.
    Gone(String),
    /// They are in another table, which had its name.
    Elsewhere,
}

pub(super) async fn kept(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
) -> Result<Kept, LedgerError> {
    let Some(then) = Remembered::of(transaction, import_id).await? else {
        return Ok(Kept::Yes);
    };
    let now = Place::from(request.table);
    let standing = then.standing(transaction, &now).await?;
    let (name, known, rows) = (&now.name, &then.place.name, then.rows);
    let gone = |why: String| match then.finished {
        true => Kept::Gone(why),
        false => Kept::No(format!(
            "it was interrupted when {rows} rows were loaded, and {why}"
        )),
    };
    let kept = match standing {
        Standing::Same | Standing::Renamed | Standing::Moved => Kept::Yes,
        Standing::Emptied => gone(format!("{name} was emptied since")),
        Standing::Missing { found } => Kept::No(format!(
            "{name} holds {found} of {rows} rows that were loaded: it was truncated or rewritten since"
        )),
        Standing::Doubtful => Kept::No(format!(
            "{name} was truncated or rewritten since, and nothing tells whether its rows are the {rows} that were loaded"
        )),
        Standing::Unseen => Kept::No(format!(
            "{name} was truncated or rewritten since, and this role may not read it to tell which: a role that may can go on with the import"
        )),
        Standing::Relogged => Kept::No(format!("{name} was made logged or unlogged since")),
        Standing::Another if known == name => {
            let why = format!(
                "{name} was dropped and made anew since, or has got its name from another one"
            );
            let sql = "SELECT EXISTS (SELECT 1 FROM pg_class WHERE oid = $1) AS there";
            let row = transaction.query_one(sql, &[&then.place.oid]).await?;
            // Its rows may have been taken along.
            match (is_empty(transaction, &now).await?, row.get("there")) {
                (false, _) => Kept::No(why),
                (true, false) => gone(why),
                (true, true) => Kept::Elsewhere,
            }
        }
        Standing::Another => Kept::No(format!("it loads {known}, not {name}")),
    };
    Ok(kept)
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
        let header = request.header.map(<[String]>::to_vec);
        let fields = request.reading.field_count(request.target.inputs().len());
        let (input, options) = (source.input.clone(), request.options.clone());
        let spans: Arc<Vec<Span>> = Arc::new(known.spans.clone());
        let comparing = move || compare(&input, &options, header.as_deref(), fields, &spans);
        let found = tokio::task::spawn_blocking(comparing).await;
        let found = found.unwrap_or(Err(InputError::Reader));
        Ok(Proof { known, found })
    });
    stream::iter(proofs)
        .buffered(machine::cores())
        .try_collect()
        .await
}
