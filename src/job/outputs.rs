//! Refuses to write a report into a file that is to be read, under whatever name, and to find only
//! at the end that a report has no place.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{LoadSettings, SettingsError};
use crate::reject_file::reasons_path;
use crate::source::Input;

/// Checks the files that the load itself writes.
pub fn check(settings: &LoadSettings) -> Result<(), SettingsError> {
    let reasons = settings.rejects.as_deref().map(reasons_path);
    let written = [
        ("--rejects", settings.rejects.as_deref()),
        ("--rejects", reasons.as_deref()),
        ("--metrics-file", settings.metrics_file.as_deref()),
    ];
    for (flag, path) in written {
        if let Some(path) = path {
            check_output(&settings.inputs, flag, path)?;
        }
    }
    let is_other = |path: &Path| path.metadata().is_ok_and(|file| !file.is_file());
    match settings
        .metrics_file
        .as_deref()
        .filter(|path| is_other(path))
    {
        Some(path) => Err(SettingsError(format!(
            "--metrics-file {}: it is replaced at each report, and this is no regular file",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Checks one file that is written beside the `inputs` that are read.
///
/// # Errors
/// When it is one of them, or its directory does not exist.
pub fn check_output(inputs: &[Input], flag: &str, path: &Path) -> Result<(), SettingsError> {
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let is_read = identity(path).is_some_and(|file| {
        inputs
            .iter()
            .any(|input| matches!(input, Input::File(read) if identity(read) == Some(file)))
    });
    if is_read {
        return Err(SettingsError(format!(
            "{flag} {}: this file is read as well; name another one",
            path.display()
        )));
    }
    let place = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if place.is_some_and(|parent| !parent.is_dir()) {
        return Err(SettingsError(format!(
            "{flag} {}: there is no such directory",
            path.display()
        )));
    }
    Ok(())
}
