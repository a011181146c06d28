//! The command that goes on with an import, as a shell takes it.

use std::borrow::Cow;

/// The same command with the import's id, if one is given, without `--restart`, and without a
/// connection string that could hold a password.
pub fn resume_command(arguments: impl Iterator<Item = String>, import_id: Option<&str>) -> String {
    let arguments: Vec<String> = arguments.collect();
    let mut words = Vec::new();
    let mut hide_next = false;
    let names_import = arguments
        .iter()
        .any(|word| word == "--import-id" || word.starts_with("--import-id="));
    for (place, word) in arguments.iter().enumerate() {
        if hide_next || word.starts_with("--dsn=") {
            words.push(if hide_next { "..." } else { "--dsn=..." }.to_string());
            hide_next = false;
            continue;
        }
        hide_next = word == "--dsn";
        if word != "--restart" {
            words.push(quoted(word));
        }
        // Right behind the subcommand: behind a `--` it would be a file.
        let is_subcommand = word == "load" && !arguments[..place].contains(word);
        if let Some(import_id) = import_id.filter(|_| is_subcommand && !names_import) {
            words.push(format!("--import-id {}", quoted(import_id)));
        }
    }
    words.join(" ")
}

/// `word` as a shell reads it back.
fn quoted(word: &str) -> String {
    // The one error is a NUL byte, which no argument can hold.
    shlex::try_quote(word)
        .unwrap_or(Cow::Borrowed(word))
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resumed(arguments: &[&str], import_id: Option<&str>) -> String {
        resume_command(arguments.iter().map(ToString::to_string), import_id)
    }

    #[test]
    fn the_resume_command_names_the_import_and_hides_the_connection_string() {
        let arguments = [
            "pgrung",
            "load",
            "a b.csv",
            "--dsn",
            "postgres://u:secret@h/d",
            "--restart",
            "-t",
            "t",
        ];
        assert_eq!(
            resumed(&arguments, Some("id1")),
            "pgrung load --import-id id1 'a b.csv' --dsn ... -t t"
        );
        assert_eq!(
            resumed(&arguments, None),
            "pgrung load 'a b.csv' --dsn ... -t t"
        );
        let joined = ["pgrung", "load", "--dsn=password=x", "--import-id", "mine"];
        assert_eq!(
            resumed(&joined, Some("mine")),
            "pgrung load --dsn=... --import-id mine"
        );
    }

    #[test]
    fn a_shell_reads_every_word_back() {
        for word in ["it's", "$(x)", "a b", "data/*.csv", "", "--a=\"b\""] {
            assert_eq!(shlex::split(&quoted(word)).unwrap(), [word]);
        }
    }
}
