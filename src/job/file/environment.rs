//! Puts variables of the environment into the strings of a job file: `${NAME}`, or with what
//! stands for one that is not set or empty, `${NAME:-default}`. Nothing else is expanded, and
//! `$${` is a `${` that is none: `$$` alone is left to SQL.

/// Looks a variable up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Fewer bytes are no secret, and would be found in every other word.
const LEAST_SECRET: usize = 4;

/// A variable and its value, which no error may show.
#[derive(Debug, Clone)]
pub struct Secret {
    name: String,
    value: String,
}

impl Secret {
    /// `text` with the name of the variable in the place of its value.
    pub fn hidden(&self, text: &str) -> String {
        match self.value.len() < LEAST_SECRET {
            true => text.to_string(),
            false => text.replace(&self.value, &format!("${{{}}}", self.name)),
        }
    }
}

/// `text` with the values of its variables, which are added to `secrets`.
///
/// # Errors
/// What is wrong with a variable, without any value.
pub fn expand(
    text: &str,
    environment: Environment<'_>,
    secrets: &mut Vec<Secret>,
) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        expanded.push_str(before);
        if let Some(behind) = from.strip_prefix("$${") {
            expanded.push_str("${");
            rest = behind;
        } else if let Some(behind) = from.strip_prefix("${") {
            let Some((inside, behind)) = behind.split_once('}') else {
                return Err(
                    "\"${\" has no \"}\"; write \"$${\" if no variable is meant".to_string()
                );
            };
            expanded.push_str(&value(inside, environment, secrets)?);
            rest = behind;
        } else {
            expanded.push('$');
            rest = &from[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The value of `NAME` or `NAME:-default`.
fn value(
    inside: &str,
    environment: Environment<'_>,
    secrets: &mut Vec<Secret>,
) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(sign) {
        return Err(format!(
            "\"${{{inside}}}\" names no variable; write \"$${{\" if none is meant"
        ));
    }
    let set = environment(name).filter(|value| default.is_none() || !value.is_empty());
    match (set, default) {
        (Some(value), _) => {
            secrets.push(Secret {
                name: name.to_string(),
                value: value.clone(),
            });
            Ok(value)
        }
        (None, Some(default)) => Ok(default.to_string()),
        (None, None) => Err(format!(
            "the variable {name} is not set; set it, or write \"${{{name}:-...}}\" with what is taken then"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "NAME" => Some("${X}".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(text, &environment, &mut Vec::new())
    }

    #[test]
    fn variables_are_expanded_once_and_nothing_else_is() {
        for (text, expected) in [
            ("a ${NAME} b", "a ${X} b"),
            ("${EMPTY}${NOT_SET:-}${NOT_SET:-a:-b}${EMPTY:-c}", "a:-bc"),
            (
                "$NAME $ $$ $1 ~ %NAME% $(id) {NAME}",
                "$NAME $ $$ $1 ~ %NAME% $(id) {NAME}",
            ),
            ("DO $$ BEGIN END $$", "DO $$ BEGIN END $$"),
            ("$${NAME} $$${NAME}", "${NAME} $${NAME}"),
            ("é$", "é$"),
        ] {
            assert_eq!(expanded(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_none_is_told() {
        for (text, told) in [
            ("${NOT_SET}", "NOT_SET is not set"),
            ("${NAME", "no \"}\""),
            ("${}", "names no variable"),
            ("${1}", "names no variable"),
            ("${A-B}", "names no variable"),
            ("${:-x}", "names no variable"),
        ] {
            let error = expanded(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
