//! SQL expressions with `:value`, `:field("Name")`, `:source`, `:record` and `:line` in them, told
//! apart from what only looks so: casts, strings, quoted names, comments.

use super::near::nearest;

/// An expression in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression(Vec<Piece>);

/// A piece of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// SQL as it is.
    Sql(String),
    /// The field that has the column's name.
    Value,
    /// The field of this name.
    Field(String),
    /// The name of the record's source.
    Source,
    /// Number of the record in its source (1-based).
    Record,
    /// Line on which it begins (1-based).
    Line,
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// There is none.
    #[error("an SQL expression is needed behind the =")]
    Empty,
    /// A string, a name or a comment does not end.
    #[error("{0} does not end")]
    Open(&'static str),
    /// Nothing goes by that name.
    #[error(
        ":{name} is unknown{near}; there are :value, :field(\"Name\"), :source, :record and :line"
    )]
    Unknown {
        /// The name.
        name: String,
        /// What was probably meant.
        near: String,
    },
    /// No name of a field.
    #[error(":field takes the name of a field in double quotes: :field(\"Name\")")]
    Field,
}

const NAMES: [&str; 5] = ["value", "field", "source", "record", "line"];

impl Expression {
    /// Takes the text apart.
    ///
    /// # Errors
    /// When something in it does not end, or is unknown.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.trim().is_empty() {
            return Err(ExpressionError::Empty);
        }
        let mut pieces = Vec::new();
        let mut sql = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let is_behind_a_word = sql.chars().next_back().is_some_and(is_of_word);
            let length = match first {
                '\'' => quoted(rest, '\'', is_escape(&sql))?,
                '"' => quoted(rest, '"', false)?,
                '$' if !is_behind_a_word => dollar_quoted(rest)?,
                '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => comment(rest)?,
                ':' if rest.starts_with("::") || rest.starts_with(":=") => 2,
                ':' if rest[1..].starts_with(is_of_name) => {
                    let (piece, length) = placeholder(rest)?;
                    pieces.push(Piece::Sql(std::mem::take(&mut sql)));
                    pieces.push(piece);
                    rest = &rest[length..];
                    continue;
                }
                _ => first.len_utf8(),
            };
            sql.push_str(&rest[..length]);
            rest = &rest[length..];
        }
        pieces.push(Piece::Sql(sql));
        pieces.retain(|piece| *piece != Piece::Sql(String::new()));
        Ok(Expression(pieces))
    }

    /// Its pieces in their order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }
}

/// What a word of SQL may hold.
fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

/// Whether a string behind this SQL takes backslashes: `E'...'`.
fn is_escape(sql: &str) -> bool {
    let mut back = sql.chars().rev();
    matches!(back.next(), Some('e' | 'E')) && !back.next().is_some_and(is_of_word)
}

/// Bytes of a string or name, its quotes included.
fn quoted(text: &str, quote: char, escapes: bool) -> Result<usize, ExpressionError> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if escapes && character == '\\' {
            characters.next();
        } else if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return Ok(at + 1);
        }
    }
    Err(ExpressionError::Open(match quote {
        '"' => "a quoted name",
        _ => "a string",
    }))
}

/// Bytes of a `$tag$...$tag$` string; of the dollar alone if it begins none.
fn dollar_quoted(text: &str) -> Result<usize, ExpressionError> {
    let Some(end) = text[1..].find(|character| !is_of_word(character) || character == '$') else {
        return Ok(1);
    };
    let tag = &text[..end + 1];
    if !text[tag.len()..].starts_with('$')
        || text[1..].starts_with(|digit: char| digit.is_ascii_digit())
    {
        return Ok(1);
    }
    let tag = &text[..tag.len() + 1];
    match text[tag.len()..].find(tag) {
        Some(at) => Ok(tag.len() + at + tag.len()),
        None => Err(ExpressionError::Open("a dollar-quoted string")),
    }
}

/// Bytes of a comment, others within it included.
fn comment(text: &str) -> Result<usize, ExpressionError> {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(ExpressionError::Open("a comment"))
}

/// What a colon and a name stand for, and their bytes.
fn placeholder(text: &str) -> Result<(Piece, usize), ExpressionError> {
    let name = &text[1..];
    let name = &name[..name
        .find(|character| !is_of_word(character))
        .unwrap_or(name.len())];
    let length = name.len() + 1;
    let piece = match name {
        "value" => Piece::Value,
        "source" => Piece::Source,
        "record" => Piece::Record,
        "line" => Piece::Line,
        "field" => {
            let (field, taken) = field_name(&text[length..])?;
            return Ok((Piece::Field(field), length + taken));
        }
        _ => {
            let near = nearest(name, NAMES.into_iter());
            return Err(ExpressionError::Unknown {
                name: name.to_string(),
                near: near.map_or(String::new(), |near| {
                    format!(", did you mean :{}?", NAMES[near])
                }),
            });
        }
    };
    Ok((piece, length))
}

/// The name in `("Name")`, and the bytes of that.
fn field_name(text: &str) -> Result<(String, usize), ExpressionError> {
    let begin = text.find('"').ok_or(ExpressionError::Field)?;
    if text[..begin].trim() != "(" {
        return Err(ExpressionError::Field);
    }
    let end = begin + quoted(&text[begin..], '"', false)?;
    let close = text[end..].find(')').ok_or(ExpressionError::Field)?;
    if !text[end..end + close].trim().is_empty() {
        return Err(ExpressionError::Field);
    }
    let name = text[begin + 1..end - 1].replace("\"\"", "\"");
    Ok((name, end + close + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<Piece> {
        Expression::parse(text).unwrap().0
    }

    fn sql(text: &str) -> Piece {
        Piece::Sql(text.to_string())
    }

    #[test]
    fn what_stands_for_something_is_told_from_sql_around_it() {
        assert_eq!(
            pieces("to_date(:value, 'DD')"),
            [sql("to_date("), Piece::Value, sql(", 'DD')")]
        );
        assert_eq!(
            pieces(":field( \"Order \"\"Date\" )::date + :line"),
            [
                Piece::Field("Order \"Date".to_string()),
                sql("::date + "),
                Piece::Line
            ]
        );
        assert_eq!(
            pieces(":source||:record"),
            [Piece::Source, sql("||"), Piece::Record]
        );
    }

    #[test]
    fn what_only_looks_so_stays_sql() {
        for text in [
            "a::value",
            "':value'",
            "''':value'",
            "E'\\':value'",
            "\":value\"",
            "$$:value$$",
            "$a$ $b$ :value $a$",
            "1 -- :value",
            "1 -- :value\n + 2",
            "/* :value /* */ :line */ 1",
            "f(a := 1)",
            "x[1:2]",
            "$1:: text",
            "cost$:",
        ] {
            assert_eq!(pieces(text), [sql(text)], "{text}");
        }
        // Neither an escape string nor a dollar quote.
        assert_eq!(
            pieces("type'\\'||:value"),
            [sql("type'\\'||"), Piece::Value]
        );
        assert_eq!(pieces("a$b$||:value"), [sql("a$b$||"), Piece::Value]);
    }

    #[test]
    fn what_does_not_end_or_is_unknown_is_refused() {
        let error = |text: &str| Expression::parse(text).unwrap_err();
        assert_eq!(error("  "), ExpressionError::Empty);
        assert_eq!(error("'a"), ExpressionError::Open("a string"));
        assert_eq!(error("\"a"), ExpressionError::Open("a quoted name"));
        assert_eq!(
            error("$a$ $b$"),
            ExpressionError::Open("a dollar-quoted string")
        );
        assert_eq!(error("/* /* */"), ExpressionError::Open("a comment"));
        assert_eq!(error(":field(name)"), ExpressionError::Field);
        assert_eq!(error(":field"), ExpressionError::Field);
        assert!(error(":vaule").to_string().contains("did you mean :value?"));
    }
}
