//! The sources as the ledger knows them: by their content where they have one.

use crate::error::Error;
use crate::ledger::SourceIdentity;
use crate::report::Console;
use crate::source::{Input, InputError, ReadOptions, head, is_same};

/// The identity of each input. A file given twice, under whatever name or packed as it may be, is
/// one source: it is loaded once, where it comes first, or, if the last counts, where it comes last.
///
/// # Errors
/// When a file cannot be read.
pub fn identities(
    inputs: &[Input],
    options: &ReadOptions,
    last_counts: bool,
    console: &Console,
) -> Result<Vec<SourceIdentity>, Error> {
    let mut sources: Vec<SourceIdentity> = Vec::new();
    let mut inputs: Vec<&Input> = inputs.iter().collect();
    if last_counts {
        inputs.reverse();
    }
    for input in inputs {
        let source = identity(input, options)?;
        match twin(&sources, &source, options)? {
            Some(twin) => console.notice(&format!(
                "{} has the same content as {}: loaded once",
                source.input.name(),
                twin.input.name()
            )),
            None => sources.push(source),
        }
    }
    if last_counts {
        sources.reverse();
    }
    Ok(sources)
}

fn identity(input: &Input, options: &ReadOptions) -> Result<SourceIdentity, InputError> {
    let name = match input {
        Input::File(path) => {
            let absolute = path.canonicalize().unwrap_or_else(|_| path.clone());
            absolute.display().to_string()
        }
        Input::Stdin | Input::Stream(_) => input.name().to_string(),
    };
    Ok(SourceIdentity {
        name,
        input: input.clone(),
        head: head(input, options)?,
    })
}

/// One of `sources` that has the same content.
fn twin<'a>(
    sources: &'a [SourceIdentity],
    source: &SourceIdentity,
    options: &ReadOptions,
) -> Result<Option<&'a SourceIdentity>, InputError> {
    let alike = |other: &&SourceIdentity| source.head.is_some() && other.head == source.head;
    for other in sources.iter().filter(alike) {
        if other.name == source.name || is_same(&other.input, &source.input, options)? {
            return Ok(Some(other));
        }
    }
    Ok(None)
}
