//! Finds connection strings and other addresses among arguments that take none, before anything
//! repeats them: they may hold a password.

use std::path::Path;

use crate::connect::is_connection_string;

/// What to say of the first of `arguments` that is an address in the wrong place; the program's
/// own name is not among them.
pub fn misplaced(arguments: impl Iterator<Item = String>) -> Option<String> {
    let mut before = String::new();
    for (place, word) in (1..).zip(arguments) {
        let expected = before == "--dsn" || word.starts_with("--dsn=");
        if let Some(advice) = advice(&word).filter(|_| !expected) {
            return Some(format!("argument {place} {advice}"));
        }
        before = word;
    }
    None
}

fn advice(word: &str) -> Option<&'static str> {
    // `--table=...`
    let value = match word.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => value,
        _ => word,
    };
    if Path::new(value).exists() {
        None
    } else if is_connection_string(value) {
        Some("is a connection string: give it with --dsn, or as DATABASE_URL")
    } else if is_address(value) {
        Some(
            "is an address: inputs are files or stdin; fetch it first, for example curl -fsS ADDRESS | pgrung load -",
        )
    } else {
        None
    }
}

/// `scheme://...`
fn is_address(text: &str) -> bool {
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(sign)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[&str]) -> Option<String> {
        misplaced(words.iter().map(ToString::to_string))
    }

    #[test]
    fn an_address_in_the_wrong_place_is_told_without_its_text() {
        for words in [
            &["load", "postgres://u:s3cr@h/d"][..],
            &["load", "jdbc:postgresql://u:s3cr@h/d"],
            &["load", "--table=postgresql://u:s3cr@h/d"],
            &["load", "--dsn", "x", "host=h password=s3cr"],
            &["load", "host=h dbname=s3cr"],
            &["password=s3cr"],
            &["load", "https://u:s3cr@h/d.csv"],
        ] {
            let text = found(words).unwrap();
            assert!(
                text.starts_with("argument ") && !text.contains("s3cr"),
                "{text}"
            );
        }
        for words in [
            &["load", "--dsn", "postgres://u:s3cr@h/d", "a.csv"][..],
            &["load", "--dsn=host=h password=s3cr"],
            &[
                "load",
                "host=web1/part.csv",
                "dt=2020-01-01",
                "a b=c",
                "--null=://",
                "C:/x",
            ],
        ] {
            assert_eq!(found(words), None, "{words:?}");
        }
    }
}
