//! Decides what each input of a run is to the ledger: a source that it knows, as far as that is
//! proven, or a new one.

use super::LedgerSource;
use super::error::LedgerError;
use super::known::{KnownSource, Proof};
use crate::source::{InputError, LOAD_ANEW};

/// What an input is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Choice<'a> {
    /// A source that the ledger knows: all its committed spans are there. `whole`: and nothing
    /// else is.
    Known { known: &'a KnownSource, whole: bool },
    /// A new source, once these are forgotten.
    New { forgotten: Vec<&'a KnownSource> },
}

/// Sources whose content is in an input of another name, while the input of their name has another:
/// logs that were rotated.
pub(super) fn moved(proofs: &[Proof]) -> Vec<&LedgerSource> {
    let is_moved = |proof: &&Proof| {
        let known = &proof.known;
        let mut others = proofs.iter().filter(|other| other.known.key == known.key);
        proof.found.is_ok()
            && !known.same_name
            && !known.spans.is_empty()
            && known.misfit.is_none()
            && others.any(|other| other.known.same_name && other.found.is_err())
    };
    let moved = proofs.iter().filter(is_moved);
    moved.map(|proof| &proof.known.key).collect()
}

/// What input `name` is, by all that was found out about it; `moved`: sources of another input. `restart`: whether it is to be loaded
/// again if it is another one now; `alone`: or whatever it is, because no other file is meant.
///
/// # Errors
/// When rows of another content of it are in the table.
pub(super) fn choose<'a>(
    name: &str,
    proofs: &'a [Proof],
    moved: &[&LedgerSource],
    restart: bool,
    alone: bool,
) -> Result<Choice<'a>, LedgerError> {
    let is_moved = |proof: &Proof| moved.contains(&&proof.known.key);
    let (gone, there): (Vec<_>, Vec<_>) = proofs
        .iter()
        .filter(|it| match is_moved(it) {
            true => it.found.is_ok(),
            false => it.known.alike,
        })
        .partition(|it| it.known.gone.is_some());
    let gone = || {
        let same = gone.iter().filter(|it| it.found.is_ok());
        same.map(|proof| &proof.known).collect::<Vec<_>>()
    };
    let same = there.iter().filter_map(|proof| match &proof.found {
        Ok(compared) if is_same(proof, compared.whole, is_moved(proof)) => {
            Some((&proof.known, compared.whole))
        }
        _ => None,
    });
    // The one of which most is loaded; of equal ones the latest, which comes first.
    let same = same
        .rev()
        .max_by_key(|(known, whole)| (*whole, known.bytes()));
    let named = || there.iter().filter(|proof| proof.known.same_name);
    let changed = named().find(|proof| proof.found.is_err() && proof.known.stored() > 0);
    // A source of which nothing is committed proves nothing.
    let proves = |known: &KnownSource| known.bytes() > 0 || changed.is_none();
    match same {
        Some((known, whole)) if !(restart && alone) && proves(known) => {
            Ok(Choice::Known { known, whole })
        }
        _ if restart => {
            // What cannot be read to its end is not proven to be another one.
            let unread = |proof: &&&Proof| {
                let found = proof.found.as_ref();
                found.is_err_and(|error| !matches!(error, InputError::Changed { .. }))
            };
            if let Some(unread) = named().find(unread).filter(|_| !alone) {
                return Err(refuse(name, unread));
            }
            let others = same.map(|(known, _)| known).filter(|it| !it.same_name);
            let mut forgotten = gone();
            forgotten.extend(named().map(|proof| &proof.known).chain(others));
            Ok(Choice::New { forgotten })
        }
        // What left no row in the table may be mended freely.
        _ => match named().find(|proof| proof.known.stored() > 0) {
            Some(proof) => Err(refuse(name, proof)),
            None => Ok(Choice::New { forgotten: gone() }),
        },
    }
}

/// Two inputs that go on with one source are not both the same: the one that has its name is.
pub(super) fn separate(choices: &mut [Choice<'_>]) {
    for index in 0..choices.len() {
        let goes_on = |choice: &Choice<'_>| match choice {
            Choice::Known { known, whole } => {
                (!whole).then(|| (known.key.clone(), known.same_name))
            }
            Choice::New { .. } => None,
        };
        let Some((key, same_name)) = goes_on(&choices[index]) else {
            continue;
        };
        let mut others = choices.iter().enumerate();
        let yields = others.any(|(other, choice)| {
            let better = |its_name: bool| its_name && !same_name;
            let first = |its_name: bool| its_name == same_name && other < index;
            goes_on(choice).is_some_and(|(its, name)| its == key && (better(name) || first(name)))
        });
        if yields {
            choices[index] = Choice::New {
                forgotten: Vec::new(),
            };
        }
    }
}

/// Whether the input is the source that was compared with it.
fn is_same(proof: &Proof, whole: bool, moved: bool) -> bool {
    let known = &proof.known;
    // Under another name a file that goes on behind a finished one is another file.
    let goes_on = moved || (!known.finished && !known.spans.is_empty());
    let name = known.same_name || whole || goes_on;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Outcome, Tally};
    use crate::source::{Change, Compared};
    use crate::span::Span;

    /// A source of number `number` with `loaded` rows, under the input's name or not.
    fn known(number: i32, same_name: bool, loaded: u64) -> KnownSource {
        let span = Span {
            end: loaded,
            tally: Tally::of(Outcome::Inserted, loaded),
            ..Span::default()
        };
        KnownSource {
            input: 0,
            key: LedgerSource {
                import_id: "x".to_string(),
                number,
                epoch: 1,
            },
            name: "f".to_string(),
            same_name,
            alike: true,
            finished: true,
            spans: vec![span],
            misfit: None,
            gone: None,
        }
    }

    fn is(whole: bool) -> Result<Compared, InputError> {
        Ok(Compared { whole })
    }

    fn differs() -> Result<Compared, InputError> {
        Err(InputError::Changed {
            name: "f".into(),
            place: Span::default().place(),
            change: Change::Bytes,
        })
    }

    fn proofs(all: Vec<(KnownSource, Result<Compared, InputError>)>) -> Vec<Proof> {
        let proof = |(known, found)| Proof { known, found };
        all.into_iter().map(proof).collect()
    }

    /// The number of the known source, and whether it is whole; else how many are forgotten.
    fn choice(proofs: &[Proof], restart: bool, alone: bool) -> Option<Result<(i32, bool), usize>> {
        Some(
            match choose("f", proofs, &moved(proofs), restart, alone).ok()? {
                Choice::Known { known, whole } => Ok((known.key.number, whole)),
                Choice::New { forgotten } => Err(forgotten.len()),
            },
        )
    }

    #[test]
    fn what_is_proven_to_be_the_same_is_known_and_the_most_of_it_counts() {
        let none = proofs(vec![]);
        assert_eq!(choice(&none, false, true), Some(Err(0)));
        let two = proofs(vec![
            (known(1, true, 5), is(false)),
            (known(2, false, 9), is(true)),
        ]);
        assert_eq!(choice(&two, false, true), Some(Ok((2, true))));
        let grown = proofs(vec![
            (known(1, true, 5), is(false)),
            (known(2, true, 9), is(false)),
        ]);
        assert_eq!(choice(&grown, false, true), Some(Ok((2, false))));
        let copy_goes_on = proofs(vec![(known(1, false, 5), is(false))]);
        assert_eq!(
            choice(&copy_goes_on, false, true),
            Some(Err(0)),
            "another file"
        );
    }

    #[test]
    fn rows_of_another_content_are_refused_and_a_source_without_rows_is_not() {
        let changed = proofs(vec![(known(1, true, 5), differs())]);
        assert_eq!(choice(&changed, false, true), None);
        let no_rows = proofs(vec![(known(1, true, 0), differs())]);
        assert_eq!(choice(&no_rows, false, true), Some(Err(0)));
        let elsewhere = proofs(vec![(known(1, false, 5), differs())]);
        assert_eq!(choice(&elsewhere, false, true), Some(Err(0)));
        let mut misfit = known(1, true, 5);
        misfit.misfit = Some("it loads another table".to_string());
        assert_eq!(choice(&proofs(vec![(misfit, is(true))]), false, true), None);
    }

    #[test]
    fn a_source_of_which_nothing_is_committed_hides_no_change() {
        let mut empty = known(2, true, 0);
        empty.finished = false;
        empty.spans.clear();
        let two = proofs(vec![
            (empty.clone(), is(false)),
            (known(1, true, 5), differs()),
        ]);
        assert_eq!(choice(&two, false, true), None);
        assert_eq!(
            choice(&proofs(vec![(empty, is(false))]), false, true),
            Some(Ok((2, false)))
        );
    }

    #[test]
    fn restart_forgets_what_has_changed_and_all_of_an_input_that_is_alone() {
        let same = proofs(vec![
            (known(1, true, 5), is(true)),
            (known(2, true, 3), differs()),
        ]);
        assert_eq!(choice(&same, true, false), Some(Ok((1, true))));
        assert_eq!(choice(&same, true, true), Some(Err(2)));
        let changed = proofs(vec![(known(1, true, 5), differs())]);
        assert_eq!(choice(&changed, true, false), Some(Err(1)));
        let copy = proofs(vec![(known(1, false, 5), is(true))]);
        assert_eq!(choice(&copy, true, true), Some(Err(1)));
    }

    #[test]
    fn a_log_that_was_rotated_is_the_old_one_under_its_new_name() {
        // The first input has the name, the second the content, and more.
        let mut copy = known(1, false, 5);
        (copy.input, copy.alike) = (1, false);
        let rotated = proofs(vec![(known(1, true, 5), differs()), (copy, is(false))]);
        let moved = moved(&rotated);
        let choice = |proofs, restart| choose("f", proofs, &moved, restart, false).unwrap();
        for restart in [false, true] {
            let new = choice(&rotated[..1], restart);
            assert_eq!(new, Choice::New { forgotten: vec![] }, "{restart}");
            let old = choice(&rotated[1..], restart);
            assert!(
                matches!(old, Choice::Known { whole: false, .. }),
                "{restart}"
            );
        }
    }

    #[test]
    fn of_two_inputs_that_go_on_with_one_source_one_is_new() {
        let (named, copy) = (known(1, true, 5), known(1, false, 5));
        let goes_on = |known| Choice::Known {
            known,
            whole: false,
        };
        let mut choices = [goes_on(&copy), goes_on(&named), goes_on(&copy)];
        separate(&mut choices);
        let is_new = choices.map(|choice| matches!(choice, Choice::New { .. }));
        assert_eq!(is_new, [true, false, true]);
    }
}
