//! Opens a run of an import: finds what the ledger knows of its inputs and has it proven, takes over
//! from older runs, and makes what is new.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::types::Oid;
use tokio_postgres::{Client, Transaction};

use super::choice::{Choice, choose, separate};
use super::error::LedgerError;
use super::known::{KnownSource, Proof, known_sources, prove, signed_head};
use super::request::Request;
use super::take_over::past_other_runs;
use super::{Ledger, LedgerSource, begin, spans};
use crate::span::Known;
use crate::target::Place;

/// Openings that found something else than the one before.
const OPENINGS: u32 = 20;

pub struct Opened {
    pub ledger: Ledger,
    /// For the readers, source by source.
    pub known: Vec<Known>,
    /// Whether nothing is left to read, source by source.
    pub whole: Vec<bool>,
}

/// Opens the run.
///
/// # Errors
/// When the inputs, the table or the options differ from what the ledger knows, and what the
/// server says.
pub async fn open(client: &mut Client, request: &Request<'_>) -> Result<Opened, LedgerError> {
    let mut proofs: Vec<Proof> = Vec::new();
    for _ in 0..OPENINGS {
        let limit = request.patience;
        let transaction = answered(limit, begin(client)).await?;
        let pid = answered(limit, process(&transaction)).await?;
        let ids: Vec<String> = proofs
            .iter()
            .map(|proof| proof.known.key.import_id.clone())
            .chain(request.import_id.clone())
            .collect();
        let enter = enter(&transaction, request, &proofs);
        let (settings, notify) = (request.settings, request.notify);
        let entered = past_other_runs(enter, pid, &ids, settings, notify, limit).await?;
        // Whatever it found: who was fenced off stays so.
        answered(limit, transaction.commit()).await?;
        match entered {
            Entered::Opened(opened) => return Ok(opened),
            // Files are read outside of the transaction: it may take long.
            Entered::Unproven(known) => proofs = prove(request, known).await?,
        }
    }
    Err(LedgerError::Unusable(
        "other runs begin and commit while this one compares the files with what they have loaded: run it again when they have ended".to_string(),
    ))
}

/// How far an opening came.
enum Entered {
    Opened(Opened),
    /// There is something that was not compared with the files yet.
    Unproven(Vec<KnownSource>),
}

/// Takes over what is known and makes what is new.
async fn enter(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    proofs: &[Proof],
) -> Result<Entered, LedgerError> {
    // Should the connection be lost without the server hearing of it.
    let limit = request.patience.as_millis();
    let limits = format!("SET LOCAL idle_in_transaction_session_timeout = {limit}");
    transaction.batch_execute(&limits).await?;
    // Of two openings the second finds what the first has made.
    transaction
        .execute(
            "SELECT pg_advisory_xact_lock(1885827439, $1::oid::int4)",
            &[&request.table.oid],
        )
        .await?;
    let known = known_sources(transaction, request).await?;
    let all = |is: fn(&KnownSource, &KnownSource) -> bool, known: &[KnownSource]| {
        let proven = proofs.iter().map(|proof| &proof.known);
        proofs.len() == known.len() && proven.zip(known).all(|(then, now)| is(then, now))
    };
    if !all(KnownSource::is_source, &known) {
        return Ok(Entered::Unproven(known));
    }
    let choices = choices(request, proofs)?;
    let epochs = take_over(transaction, request, &choices).await?;
    fence_off(transaction, proofs).await?;
    // Until they were fenced off, older runs may have committed more.
    let known = known_sources(transaction, request).await?;
    if !all(KnownSource::is_as, &known) {
        return Ok(Entered::Unproven(known));
    }
    vacate(transaction, request, proofs).await?;
    for choice in &choices {
        forget(transaction, request, choice).await?;
    }
    let new = Home::find(transaction, request, &choices).await?;
    let mut sources = Vec::new();
    let mut known = Vec::new();
    let mut whole = Vec::new();
    for (input, choice) in choices.iter().enumerate() {
        let Choice::Known {
            known: it,
            whole: all,
        } = choice
        else {
            sources.push(new.enrol(transaction, request, input).await?);
            known.push(Known::new());
            whole.push(false);
            continue;
        };
        tell(request, it, *all);
        let epoch = epochs.iter().find(|(id, _)| *id == it.key.import_id);
        sources.push(LedgerSource {
            epoch: epoch.map_or(0, |(_, epoch)| *epoch),
            ..it.key.clone()
        });
        known.push(it.spans.clone());
        whole.push(*all);
    }
    let ledger = Ledger {
        import_id: new.import_id,
        sources,
        table: Place::from(request.table),
        unlogged: request.table.unlogged,
    };
    ledger.reopen(transaction, &whole).await?;
    Ok(Entered::Opened(Opened {
        ledger,
        known,
        whole,
    }))
}

/// What each input is, by all that was found out.
fn choices<'a>(request: &Request<'_>, proofs: &'a [Proof]) -> Result<Vec<Choice<'a>>, LedgerError> {
    let alone = request.sources.len() == 1;
    let mut choices = Vec::new();
    for (input, source) in request.sources.iter().enumerate() {
        let first = proofs.partition_point(|proof| proof.known.input < input);
        let count = proofs[first..].partition_point(|proof| proof.known.input == input);
        let mine = &proofs[first..first + count];
        choices.push(choose(&source.name, mine, request.restart, alone)?);
    }
    separate(&mut choices);
    Ok(choices)
}

/// Says of a file that it is no other one than it was.
fn tell(request: &Request<'_>, known: &KnownSource, whole: bool) {
    let (name, import_id) = (&request.sources[known.input].name, &known.key.import_id);
    if whole && request.restart {
        (request.notify)(&format!(
            "{name}: is as import {import_id} loaded it; --restart loads it again only as the only input"
        ));
    } else if whole && !known.same_name {
        (request.notify)(&format!(
            "{name}: loaded by import {import_id} already, as {}",
            known.name
        ));
    } else if whole && request.sources.len() > 1 {
        (request.notify)(&format!("{name}: loaded by import {import_id} already"));
    } else if !whole
        && known.finished
        && !known.spans.is_empty()
        && request.sources[known.input].head.is_some()
    {
        (request.notify)(&format!(
            "{name}: has grown since import {import_id} loaded it; what was loaded is unchanged, the rest is loaded now"
        ));
    }
}

/// Forgets what imports have loaded whose rows are gone, in sources of this run and in others: it
/// is no longer true. What was put aside stays.
async fn vacate(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    proofs: &[Proof],
) -> Result<(), LedgerError> {
    let mut vacated: Vec<&str> = Vec::new();
    for proof in proofs {
        let import_id = proof.known.key.import_id.as_str();
        let Some(gone) = proof
            .known
            .gone
            .as_ref()
            .filter(|_| !vacated.contains(&import_id))
        else {
            continue;
        };
        vacated.push(import_id);
        let mut rows = 0;
        for spans in [spans(false), spans(true)] {
            let sql = format!(
                "WITH gone AS (DELETE FROM {spans} WHERE import_id = $1 RETURNING loaded)
                 SELECT coalesce(sum(loaded), 0)::bigint AS rows FROM gone"
            );
            let row = transaction.query_one(&sql, &[&import_id]).await?;
            rows += row.get::<_, i64>("rows");
        }
        transaction
            .execute(
                "WITH sources AS (UPDATE pgrung.sources SET finished_at = NULL WHERE import_id = $1)
                 UPDATE pgrung.imports
                 SET finished_at = NULL, target = $2, target_oid = $3, target_filenode = $4, target_unlogged = $5
                 WHERE import_id = $1",
                &[
                    &import_id,
                    &request.target.table,
                    &request.table.oid,
                    &request.table.filenode,
                    &request.table.unlogged,
                ],
            )
            .await?;
        (request.notify)(&format!(
            "import {import_id} had loaded {rows} rows, but {gone}: what it loaded is forgotten, and loaded again where it comes again"
        ));
    }
    Ok(())
}

/// Keeps older runs from committing more of what is no longer the source of an input, but has its
/// name: that left no row in the table so far, and is to leave none.
async fn fence_off(transaction: &Transaction<'_>, proofs: &[Proof]) -> Result<(), LedgerError> {
    let of_name = proofs.iter().filter(|proof| proof.known.same_name);
    for proof in of_name.filter(|proof| proof.known.stored() == 0) {
        let LedgerSource {
            import_id,
            number,
            epoch,
        } = &proof.known.key;
        transaction
            .execute(
                "UPDATE pgrung.sources SET epoch = epoch + 1 WHERE import_id = $1 AND source = $2 AND epoch = $3",
                &[import_id, number, epoch],
            )
            .await?;
    }
    Ok(())
}

/// Forgets sources, and imports of which nothing is left.
async fn forget(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    choice: &Choice<'_>,
) -> Result<(), LedgerError> {
    let Choice::New { forgotten } = choice else {
        return Ok(());
    };
    for known in forgotten {
        let LedgerSource {
            import_id, number, ..
        } = &known.key;
        transaction
            .execute(
                "DELETE FROM pgrung.sources WHERE import_id = $1 AND source = $2",
                &[import_id, number],
            )
            .await?;
        transaction
            .execute(
                // An id that this run goes on with keeps its count of runs: older ones stay fenced off.
                "DELETE FROM pgrung.imports i WHERE import_id = $1 AND import_id IS DISTINCT FROM $2
                   AND NOT EXISTS (SELECT FROM pgrung.sources s WHERE s.import_id = i.import_id)",
                &[import_id, &request.import_id],
            )
            .await?;
        if known.gone.is_none() {
            (request.notify)(&format!(
                "{}: what import {import_id} knew of it is forgotten, with {} rows in the table",
                known.name,
                known.stored(),
            ));
        }
    }
    Ok(())
}

/// The import to which new sources of a run belong.
struct Home {
    import_id: String,
    epoch: i64,
}

impl Home {
    /// The import that the run names; else that of the sources, if all are known; else a new one.
    async fn find(
        transaction: &Transaction<'_>,
        request: &Request<'_>,
        choices: &[Choice<'_>],
    ) -> Result<Self, LedgerError> {
        let is_new = |choice: &Choice<'_>| matches!(choice, Choice::New { .. });
        let first = choices.iter().find_map(|choice| match choice {
            Choice::Known { known, .. } => Some(known.key.import_id.clone()),
            Choice::New { .. } => None,
        });
        let import_id = match (&request.import_id, first) {
            (Some(import_id), _) => import_id.clone(),
            (None, Some(first)) if !choices.iter().any(is_new) => first,
            (None, _) => format!("{:016x}", fastrand::u64(..)),
        };
        // One without sources is as good as new, but for the count of its runs.
        let made = transaction
            .execute(
                "INSERT INTO pgrung.imports AS i (import_id, target, target_oid, target_filenode, target_unlogged, columns, reading, epoch)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 1)
                 ON CONFLICT (import_id) DO UPDATE
                 SET target = $2, target_oid = $3, target_filenode = $4, target_unlogged = $5, columns = $6, reading = $7
                 WHERE NOT EXISTS (SELECT FROM pgrung.sources s WHERE s.import_id = i.import_id)",
                &[
                    &import_id,
                    &request.target.table,
                    &request.table.oid,
                    &request.table.filenode,
                    &request.table.unlogged,
                    &request.columns(),
                    &json!(request.reading),
                ],
            )
            .await?;
        let row = transaction
            .query_one(
                "SELECT epoch, target, target_oid, columns, reading FROM pgrung.imports WHERE import_id = $1",
                &[&import_id],
            )
            .await?;
        let elsewhere = (row.get::<_, Oid>("target_oid") != request.table.oid)
            .then(|| format!("it loads {}", row.get::<_, &str>("target")));
        match elsewhere.or_else(|| request.misfit(&row)) {
            Some(misfit) if made == 0 && choices.iter().any(is_new) => {
                Err(LedgerError::Changed(format!(
                    "import {import_id} is there already, but {misfit}: name another --import-id, or --restart with what was loaded under it"
                )))
            }
            _ => Ok(Home {
                import_id,
                epoch: row.get("epoch"),
            }),
        }
    }

    /// Gives a new source its number.
    async fn enrol(
        &self,
        transaction: &Transaction<'_>,
        request: &Request<'_>,
        input: usize,
    ) -> Result<LedgerSource, LedgerError> {
        let source = &request.sources[input];
        let row = transaction
            .query_one(
                "INSERT INTO pgrung.sources (import_id, source, name, heads, epoch)
                 SELECT $1, coalesce(max(source) + 1, 0), $2, array_remove(ARRAY[$3::bigint], NULL), $4 FROM pgrung.sources WHERE import_id = $1
                 RETURNING source",
                &[&self.import_id, &source.name, &signed_head(source), &self.epoch],
            )
            .await?;
        Ok(LedgerSource {
            import_id: self.import_id.clone(),
            number: row.get("source"),
            epoch: self.epoch,
        })
    }
}

/// Raises the epoch of each import that is known: from now on no transaction of an older run can
/// commit rows of its sources that are inputs of this one. Waits for batches of such a run that
/// are in the middle of a transaction.
async fn take_over(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    choices: &[Choice<'_>],
) -> Result<Vec<(String, i64)>, LedgerError> {
    let known = choices.iter().filter_map(|choice| match choice {
        Choice::Known { known, .. } => Some(*known),
        Choice::New { .. } => None,
    });
    let mut imports: Vec<&str> = known.clone().map(|it| it.key.import_id.as_str()).collect();
    imports.extend(request.import_id.as_deref());
    // In one order, whoever comes.
    imports.sort_unstable();
    imports.dedup();
    let mut epochs = Vec::new();
    for import_id in imports {
        let raised = transaction
            .query_opt(
                "UPDATE pgrung.imports SET epoch = epoch + 1, run_at = now() WHERE import_id = $1 RETURNING epoch",
                &[&import_id],
            )
            .await?;
        let Some(row) = raised else { continue };
        let epoch: i64 = row.get("epoch");
        for known in known.clone().filter(|it| it.key.import_id == import_id) {
            let head = signed_head(&request.sources[known.input]);
            transaction
                .execute(
                    "UPDATE pgrung.sources SET epoch = $3, heads = CASE
                         WHEN $4::bigint IS NULL OR $4 = ANY (heads) THEN heads ELSE heads || $4 END
                     WHERE import_id = $1 AND source = $2",
                    &[&import_id, &known.key.number, &epoch, &head],
                )
                .await?;
        }
        epochs.push((import_id.to_string(), epoch));
    }
    Ok(epochs)
}

/// The server process of a transaction.
async fn process(transaction: &Transaction<'_>) -> Result<i32, tokio_postgres::Error> {
    let sql = "SELECT pg_backend_pid() AS pid";
    Ok(transaction.query_one(sql, &[]).await?.get("pid"))
}

async fn answered<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, LedgerError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(LedgerError::NoAnswer(limit)),
    }
}
