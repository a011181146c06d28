//! Opens a run of an import: finds what the ledger knows of its inputs and has it proven, takes over
//! from older runs, and makes what is new.

use std::time::Duration;

use tokio_postgres::{Client, Transaction};

use super::choice::{Choice, choose, moved, separate};
use super::error::LedgerError;
use super::forget::{forget, forget_rejects, vacate};
use super::home::Home;
use super::known::{KnownSource, Proof, known_sources, prove, signed_head};
use super::locks::past_other_runs;
use super::request::Request;
use super::user_sql::run_sql;
use super::{Ledger, LedgerSource, TABLE_LOCK, begin};
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
    let mut is_begun = request.before.is_empty();
    for _ in 0..OPENINGS {
        let limit = request.patience;
        let transaction = answered(limit, begin(client)).await?;
        let pid = answered(limit, process(&transaction)).await?;
        let ids: Vec<String> = proofs
            .iter()
            .map(|proof| proof.known.key.import_id.clone())
            .chain(request.import_id.clone())
            .collect();
        let enter = enter(&transaction, request, &proofs, is_begun);
        let (settings, notify) = (request.settings, request.notify);
        let entered = past_other_runs(enter, pid, &ids, settings, notify, limit).await?;
        // Whatever it found: who was fenced off stays so.
        answered(limit, transaction.commit()).await?;
        match entered {
            Entered::Opened(opened) => return Ok(opened),
            Entered::Begun => {
                is_begun = true;
                proofs.clear();
            }
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
    /// The user's SQL has run, and may have changed what is known.
    Begun,
    /// There is something that was not compared with the files yet.
    Unproven(Vec<KnownSource>),
}

/// Takes over what is known and makes what is new.
async fn enter(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    proofs: &[Proof],
    is_begun: bool,
) -> Result<Entered, LedgerError> {
    // Should the connection be lost without the server hearing of it.
    let limit = request.patience.as_millis();
    let limits = format!("SET LOCAL idle_in_transaction_session_timeout = {limit}");
    transaction.batch_execute(&limits).await?;
    // Of two openings the second finds what the first has made.
    transaction
        .execute(
            &format!("SELECT pg_advisory_xact_lock({TABLE_LOCK}, $1::oid::int4)"),
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
    let is_there = |proof: &Proof| {
        proof.found.is_ok() && proof.known.gone.is_none() && proof.known.bytes() > 0
    };
    if !is_begun && !proofs.iter().any(is_there) {
        run_sql(transaction, "--before", request.before).await?;
        return Ok(Entered::Begun);
    }
    let choices = choices(request, proofs)?;
    let epochs = take_over(transaction, request, &choices).await?;
    fence_off(transaction, proofs, &choices).await?;
    // Until they were fenced off, older runs may have committed more.
    let known = known_sources(transaction, request).await?;
    if !all(KnownSource::is_as, &known) {
        return Ok(Entered::Unproven(known));
    }
    vacate(transaction, request, proofs).await?;
    for choice in &choices {
        forget(transaction, request, choice).await?;
    }
    let (home, inputs) = assign_sources(transaction, request, &choices, &epochs).await?;
    let Inputs {
        sources,
        known,
        whole,
    } = inputs;
    let named = sources.iter().map(|source| &source.import_id);
    let mine = named
        .clone()
        .find(|id| request.import_id.as_ref() == Some(id));
    let first = mine.or(named.clone().next()).cloned();
    let ledger = Ledger {
        import_id: home
            .map(|home| home.import_id)
            .or(first)
            .unwrap_or_default(),
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

/// What the inputs are to the ledger from now on, in their order.
#[derive(Default)]
struct Inputs {
    sources: Vec<LedgerSource>,
    known: Vec<Known>,
    whole: Vec<bool>,
}

/// Gives each input its source: the one that is known, or a new one in the import of this run.
async fn assign_sources(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    choices: &[Choice<'_>],
    epochs: &[(String, i64)],
) -> Result<(Option<Home>, Inputs), LedgerError> {
    let mut home = None;
    let mut inputs = Inputs::default();
    for (input, choice) in choices.iter().enumerate() {
        let Choice::Known {
            known: it,
            whole: all,
        } = choice
        else {
            let home = match &home {
                Some(home) => home,
                None => home.insert(Home::find(transaction, request).await?),
            };
            inputs
                .sources
                .push(home.enrol(transaction, request, input).await?);
            inputs.known.push(Known::new());
            inputs.whole.push(false);
            continue;
        };
        if it.spans.is_empty() {
            forget_rejects(transaction, &it.key).await?;
        }
        tell(request, it, *all);
        let epoch = epochs.iter().find(|(id, _)| *id == it.key.import_id);
        inputs.sources.push(LedgerSource {
            epoch: epoch.map_or(0, |(_, epoch)| *epoch),
            ..it.key.clone()
        });
        inputs.known.push(it.spans.clone());
        inputs.whole.push(*all);
    }
    Ok((home, inputs))
}

/// What each input is, by all that was found out.
fn choices<'a>(request: &Request<'_>, proofs: &'a [Proof]) -> Result<Vec<Choice<'a>>, LedgerError> {
    let alone = request.sources.len() == 1;
    let moved = moved(proofs);
    let mut choices = Vec::new();
    for (input, source) in request.sources.iter().enumerate() {
        let first = proofs.partition_point(|proof| proof.known.input < input);
        let count = proofs[first..].partition_point(|proof| proof.known.input == input);
        let mine = &proofs[first..first + count];
        choices.push(choose(&source.name, mine, &moved, request.restart, alone)?);
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

/// Keeps older runs from committing more of what is no longer the source of an input, but has its
/// name: that left no row in the table so far, and is to leave none.
async fn fence_off(
    transaction: &Transaction<'_>,
    proofs: &[Proof],
    choices: &[Choice<'_>],
) -> Result<(), LedgerError> {
    let is_chosen = |it: &KnownSource| {
        let is_it = |choice: &Choice<'_>| matches!(choice, Choice::Known { known, .. } if known.key == it.key);
        choices.iter().any(is_it)
    };
    let of_name = proofs.iter().filter(|proof| proof.known.same_name);
    let others = of_name.filter(|proof| !is_chosen(&proof.known));
    for proof in others.filter(|proof| proof.known.stored() == 0) {
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
        let mine = known.clone().filter(|it| it.key.import_id == import_id);
        if mine.clone().next().is_some() {
            // It may have another name or storage by now.
            let now = Place::from(request.table);
            transaction
                .execute(
                    "UPDATE pgrung.imports SET target = $2, target_filenode = $3
                     WHERE import_id = $1 AND (target, target_filenode) IS DISTINCT FROM ($2, $3)",
                    &[&import_id, &now.name, &now.filenode],
                )
                .await?;
        }
        for known in mine {
            let source = &request.sources[known.input];
            let head = signed_head(source);
            // Its name is another input's now.
            let renamed = request.sources.iter().any(|it| it.name == known.name);
            transaction
                .execute(
                    "UPDATE pgrung.sources SET epoch = $3, heads = CASE
                         WHEN $4::bigint IS NULL OR $4 = ANY (heads) THEN heads ELSE heads || $4 END,
                         name = CASE WHEN $5 THEN $6 ELSE name END
                     WHERE import_id = $1 AND source = $2",
                    &[&import_id, &known.key.number, &epoch, &head, &renamed, &source.name],
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
