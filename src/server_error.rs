//! Reads what the server says: one line for people, the row that COPY names, no values of rows
//! beyond the server's own message.

use std::error::Error;
use std::fmt::Write;

use tokio_postgres::error::DbError;

/// One line: `ERROR 22P02: invalid input syntax ...`, or what the connection says. Control
/// characters are escaped; DETAIL and CONTEXT are left out because they quote whole rows.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => describe_server(server),
        None => chain(error),
    }
}

/// The message of any error with all its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut line = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = one_line(&inner.to_string());
        if !line.contains(&text) {
            let _ = write!(line, ": {text}");
        }
        cause = inner.source();
    }
    line
}

/// As [`describe`], of the server's own error.
pub fn describe_server(server: &DbError) -> String {
    let mut line = format!(
        "{} {}: {}",
        server.severity(),
        server.code().code(),
        one_line(server.message())
    );
    if let Some(hint) = server.hint() {
        let _ = write!(line, " (hint: {})", one_line(hint));
    }
    line
}

/// Whether a character could break a line of a terminal, or show it in another order than it is
/// written: control characters, line separators, and what turns the direction of text.
pub fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with such characters escaped, so that it stays on its line.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if is_misleading(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// `text` of several lines with what is misleading in them escaped as JSON does: JSON stays what it
/// is.
pub fn harmless(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for character in text.chars() {
        if is_misleading(character) && character != '\n' {
            let _ = write!(lines, "\\u{:04x}", u32::from(character));
        } else {
            lines.push(character);
        }
    }
    lines
}

/// Number of the row (1-based) that the CONTEXT of an error during COPY names. The word "line" is
/// translated, the order of the parts is not: `COPY table, line N`.
pub fn copy_line(server: &DbError, table: &str) -> Option<usize> {
    parse_copy_line(server.where_()?, table)
}

/// Column that the CONTEXT of an error during COPY names.
pub fn copy_column(server: &DbError, table: &str) -> Option<String> {
    let context = copy_context(server.where_()?, table)?;
    // `COPY t, line 3, column c: "value"`, `... column c: null input`; binary: `... column c`
    let (_, rest) = context.split_once(", ")?;
    let (_, column) = rest.split_once(' ')?;
    let name = column.split_once(": ").map_or(column, |(name, _)| name);
    Some(name.to_string())
}

/// What follows `COPY table, ` on its line; the server writes the bare name of the table.
fn copy_context<'a>(context: &'a str, table: &str) -> Option<&'a str> {
    let bare = bare_name(table);
    context.lines().find_map(|line| {
        let at = line.find("COPY ")?;
        line[at + 5..].strip_prefix(&bare)?.strip_prefix(", ")
    })
}

fn parse_copy_line(context: &str, table: &str) -> Option<usize> {
    let rest = copy_context(context, table)?;
    let digits = rest.trim_start_matches(|character: char| !character.is_ascii_digit());
    let head = &rest[..rest.len() - digits.len()];
    // The number stands in the first part; digits further on belong to a column or a value.
    if head.contains([',', ':', '"']) {
        return None;
    }
    let end = digits
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The last part of a quoted, qualified name, unquoted.
fn bare_name(table: &str) -> String {
    let name = table.rsplit_once("\".\"").map_or(table, |(_, name)| name);
    name.trim_matches('"').replace("\"\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_number_is_found_in_every_form_of_the_context() {
        let table = "\"s\".\"t\"";
        for (context, expected) in [
            ("COPY t, line 3, column c: \"v\"", Some(3)),
            ("COPY t, line 12, column c: null input", Some(12)),
            ("COPY t, line 7: \"1\t2\"", Some(7)),
            ("COPY t, line 9", Some(9)),
            ("COPY t, Zeile 5, Spalte c: »v«", Some(5)),
            (
                "PL/pgSQL function f() line 99 at RAISE\nCOPY t, line 4: \"x\"",
                Some(4),
            ),
            ("COPY other, line 4", None),
            ("COPY t, ligne: 4", None),
            ("SQL statement \"SELECT 1\"", None),
        ] {
            assert_eq!(parse_copy_line(context, table), expected, "{context}");
        }
    }

    #[test]
    fn a_name_with_odd_characters_is_recognised() {
        assert_eq!(
            parse_copy_line("COPY a\"b, line 2", "\"s\".\"a\"\"b\""),
            Some(2)
        );
        assert_eq!(
            parse_copy_line("COPY s.t, line 2", "\"x\".\"s.t\""),
            Some(2)
        );
    }

    #[test]
    fn control_characters_cannot_break_the_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(one_line("\u{9b}1m\u{202e}é"), "\\u{9b}1m\\u{202e}é");
    }
}
