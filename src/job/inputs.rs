//! Turns inputs as typed into sources: stdin, names, or globs that the shell left alone.

use std::path::PathBuf;

use super::SettingsError;
use crate::source::Input;

/// The sources of `typed`, in their order; stdin if nothing was typed.
///
/// # Errors
/// When stdin is named twice, or a glob makes no sense or matches nothing.
pub fn inputs(typed: &[String]) -> Result<Vec<Input>, SettingsError> {
    if typed.is_empty() {
        return Ok(vec![Input::Stdin]);
    }
    let refuse = |message: String| Err(SettingsError(message));
    let mut inputs = Vec::new();
    for text in typed {
        if text == "-" {
            if inputs.iter().any(|input| matches!(input, Input::Stdin)) {
                return refuse("stdin (\"-\") is named twice".to_string());
            }
            inputs.push(Input::Stdin);
        } else if !text.contains(['*', '?', '[']) || PathBuf::from(text).exists() {
            inputs.push(Input::File(PathBuf::from(text)));
        } else {
            let paths = match glob::glob(text) {
                Ok(paths) => paths,
                Err(error) => return refuse(format!("\"{text}\" is not a glob: {error}")),
            };
            let before = inputs.len();
            // Unreadable directories on the way are passed over, as in a shell.
            let files = paths.flatten().filter(|path| !path.is_dir());
            inputs.extend(files.map(Input::File));
            if inputs.len() == before {
                return refuse(format!("\"{text}\" matches no file"));
            }
        }
    }
    Ok(inputs)
}
