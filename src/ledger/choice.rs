//! Decides what each input of a run is to the ledger: a source that it knows, as far as that is
//! proven, or a new one.

use super::error::LedgerError;
use super::known::{KnownSource, Proof};
use crate::source::LOAD_ANEW;

/// What an input is.
#[derive(Debug, PartialEq)]
pub(super) enum Choice<'a> {
    /// A source that the ledger knows: all its committed stretches are there. `whole`: and nothing
    /// else is.
    Known { known: &'a KnownSource, whole: bool },
    /// A new source, once these are forgotten, of which no row is in the table or is to count.
    New { forgotten: Vec<&'a KnownSource> },
}

/// What input `name` is, by all that was found out about it. `restart`: whether it is to be loaded
/// again if it is another one now; `alone`: or whatever it is, because no other file is meant.
///
/// # Errors
/// When rows of another content of it are in the table.
pub(super) fn choose<'a>(
    name: &str,
    proofs: &'a [Proof],
    restart: bool,
    alone: bool,
) -> Result<Choice<'a>, LedgerError> {
    let same = proofs.iter().find_map(|proof| match &proof.found {
        Ok(compared) if is_same(proof, compared.whole) => Some((&proof.known, compared.whole)),
        _ => None,
    });
    let named = proofs.iter().filter(|proof| proof.known.same_name);
    let forgotten = |same: Option<&'a KnownSource>| Choice::New {
        forgotten: named
            .clone()
            .map(|proof| &proof.known)
            .chain(same.filter(|known| !known.same_name))
            .collect(),
    };
    match same {
        Some((known, _)) if restart && alone => Ok(forgotten(Some(known))),
        Some((known, whole)) => Ok(Choice::Known { known, whole }),
        None if restart => Ok(forgotten(None)),
        // What left no row in the table may be mended freely.
        None => match named.clone().find(|proof| proof.known.loaded() > 0) {
            Some(proof) => Err(refuse(name, proof)),
            None => Ok(forgotten(None)),
        },
    }
}

/// Whether the input is the source that was compared with it.
fn is_same(proof: &Proof, whole: bool) -> bool {
    let known = &proof.known;
    // Under another name a file that goes on behind a finished one is another file.
    let name = known.same_name || whole || (!known.finished && !known.spans.is_empty());
    name && known.misfit.is_none()
}

fn refuse(name: &str, proof: &Proof) -> LedgerError {
    let import_id = &proof.known.key.import_id;
    LedgerError::Changed(match (&proof.found, &proof.known.misfit) {
        (Err(error), _) => format!("import {import_id}: {error}"),
        (Ok(_), misfit) => format!(
            "import {import_id}: {name}: {}; {LOAD_ANEW}",
            misfit
                .as_deref()
                .unwrap_or("it was loaded as something else"),
        ),
    })
}
