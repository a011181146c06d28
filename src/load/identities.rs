//! The sources as the ledger knows them: by their content where they have one.

use crate::error::Error;
use crate::ledger::SourceIdentity;
use crate::report::Console;
use crate::source::{Fingerprint, Input, InputError};

/// The identity of each input. Reads of the files what their fingerprints need.
///
/// # Errors
/// When a file cannot be read.
pub fn identities(inputs: &[Input]) -> Result<Vec<SourceIdentity>, Error> {
    let identities: Result<_, InputError> = inputs.iter().map(identity).collect();
    Ok(identities?)
}

fn identity(input: &Input) -> Result<SourceIdentity, InputError> {
    let Input::File(path) = input else {
        return Ok(SourceIdentity {
            name: input.name().to_string(),
            fingerprint: None,
            path: None,
        });
    };
    let fingerprint = Fingerprint::of(path).map_err(|source| InputError::Read {
        name: input.name(),
        error: source,
    })?;
    let absolute = path.canonicalize().unwrap_or_else(|_| path.clone());
    Ok(SourceIdentity {
        name: absolute.display().to_string(),
        fingerprint,
        path: Some(path.clone()),
    })
}

/// A file given twice, under whatever name, is one source: it is loaded once.
pub fn drop_twins(inputs: &mut Vec<Input>, sources: &mut Vec<SourceIdentity>, console: &Console) {
    let mut index = 0;
    while index < sources.len() {
        let source = &sources[index];
        let twin = sources[..index]
            .iter()
            .find(|other| source.fingerprint.is_some() && other.fingerprint == source.fingerprint);
        if let Some(twin) = twin {
            console.notice(&format!(
                "{} has the same content as {}: loaded once",
                source.name, twin.name
            ));
            sources.remove(index);
            inputs.remove(index);
        } else {
            index += 1;
        }
    }
}
