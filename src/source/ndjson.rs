//! Reads lines of JSON objects: one object a line, its keys matched to columns.
//!
//! A string becomes its text, a number and a boolean their spelling, `null` NULL, an object or an
//! array its JSON text. For json and jsonb columns a string stays JSON, quotes included. A column
//! whose key is absent from a line is NULL there. RFC 8259 leaves open which of two values of one
//! key counts, so a line that gives a column two of them is refused.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::encoding::Encoding;
use super::fields::{FieldError, FieldErrorKind, Fields};

/// A column that keys are matched to.
#[derive(Debug, Clone)]
pub struct KeyColumn {
    /// Its name, unquoted.
    pub name: String,
    /// Whether it takes JSON as it is written, strings included.
    pub json: bool,
    /// Whether a key that differs in case only can mean it: no other column of the table does, be
    /// that one loaded or not.
    pub any_case: bool,
}

/// The columns of a load, in their order, to be found by key.
#[derive(Debug, Clone)]
pub struct Keys {
    exact: HashMap<String, Meaning>,
    /// By the names in lower case, those that a key of another case can mean.
    any_case: HashMap<String, Meaning>,
    json: Vec<bool>,
}

/// What a key means; as small as a number alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The column of this place (0-based).
    Column(u32),
    Skipped,
}

impl Keys {
    /// `columns` in the order of the load.
    pub fn new(columns: impl IntoIterator<Item = KeyColumn>) -> Self {
        let mut keys = Keys {
            exact: HashMap::new(),
            any_case: HashMap::new(),
            json: Vec::new(),
        };
        for (index, column) in (0..).zip(columns) {
            let meaning = Meaning::Column(index);
            if column.any_case {
                keys.any_case.insert(column.name.to_lowercase(), meaning);
            }
            keys.exact.insert(column.name, meaning);
            keys.json.push(column.json);
        }
        keys
    }

    /// Passes over these keys, whatever their values; a column of the load stays one.
    #[must_use]
    pub(super) fn skipping(mut self, keys: &[String]) -> Self {
        for key in keys {
            let (exact, any_case) = (key.clone(), key.to_lowercase());
            self.exact.entry(exact).or_insert(Meaning::Skipped);
            self.any_case.entry(any_case).or_insert(Meaning::Skipped);
        }
        self
    }

    /// The column that `key` means: the one of that very name, else the only one of the table that
    /// differs in case.
    #[inline]
    fn find(&self, key: &str) -> Option<Meaning> {
        let exact = self.exact.get(key).copied();
        exact.or_else(|| self.any_case.get(&key.to_lowercase()).copied())
    }
}

/// Length of the record at the start of `bytes`, its line end included; `scanned` bytes are known
/// to hold none. Blank lines belong to the record behind them.
pub fn next_end(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    loop {
        match memchr::memchr(b'\n', &bytes[*scanned..]) {
            None => {
                *scanned = bytes.len();
                return None;
            }
            Some(found) => {
                let end = *scanned + found + 1;
                *scanned = end;
                if !bytes[..end].trim_ascii().is_empty() {
                    *scanned = 0;
                    return Some(end);
                }
            }
        }
    }
}

/// Cuts one line into `fields`; it is in UTF-8, and stands in its source in `encoding`.
///
/// # Errors
/// When the line is not one JSON object, has a key that no column answers to, or two that one does.
pub fn parse(
    keys: &Keys,
    encoding: Encoding,
    record: &[u8],
    fields: &mut Fields,
) -> Result<(), FieldError> {
    fields.reset(keys.json.len());
    let mut failure = None;
    let mut input = serde_json::Deserializer::from_slice(record);
    let seed = Object {
        keys,
        record,
        fields,
        failure: &mut failure,
    };
    let read = seed.deserialize(&mut input).and_then(|()| input.end());
    match (failure, read) {
        (Some(failure), _) => Err(failure),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => {
            let read = String::from_utf8_lossy(&record[..error.column().min(record.len())]);
            let what = describe(&error, encoding.encode(&read).len());
            Err(FieldError::record(FieldErrorKind::Json(what)))
        }
    }
}

/// The keys of one line, in their order; `None` if it is not a JSON object.
pub fn keys_of(record: &[u8]) -> Option<Vec<String>> {
    struct Names(Vec<String>);
    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Read;
            impl<'de> Visitor<'de> for Read {
                type Value = Names;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Names, M::Error> {
                    let mut names = Vec::new();
                    while let Some(name) = map.next_key::<String>()? {
                        map.next_value::<serde::de::IgnoredAny>()?;
                        names.push(name);
                    }
                    Ok(Names(names))
                }
            }
            deserializer.deserialize_map(Read)
        }
    }
    serde_json::from_slice::<Names>(record)
        .ok()
        .map(|names| names.0)
}

/// serde_json's words without the values of the row, which some of them quote; `byte` (1-based) is
/// where it stopped.
fn describe(error: &serde_json::Error, byte: usize) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "the object is not closed".to_string(),
        serde_json::error::Category::Data => "the line is not an object".to_string(),
        _ => format!("syntax error at byte {byte} of the record"),
    }
}

struct Object<'a> {
    keys: &'a Keys,
    record: &'a [u8],
    fields: &'a mut Fields,
    failure: &'a mut Option<FieldError>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let value: &RawValue = map.next_value()?;
            if self.failure.is_some() {
                continue;
            }
            let index = match self.keys.find(&key) {
                Some(Meaning::Column(index)) => index as usize,
                Some(Meaning::Skipped) => continue,
                None => {
                    let kind = FieldErrorKind::UnknownKey(key.into_owned());
                    *self.failure = Some(FieldError::record(kind));
                    continue;
                }
            };
            if self.fields.is_given(index) {
                let kind = FieldErrorKind::ColumnTwice(key.into_owned());
                *self.failure = Some(FieldError::at(index, kind));
                continue;
            }
            let text = value.get();
            // `value` borrows from `record`: the distance of the two is its place in the record.
            let start = text.as_ptr() as usize - self.record.as_ptr() as usize;
            let end = start + text.len();
            if text == "null" {
                self.fields.set_null(index);
            } else if !text.starts_with('"') || self.keys.json[index] {
                self.fields.set_raw(index, start, end);
            } else if !text.contains('\\') {
                self.fields.set_raw(index, start + 1, end - 1);
            } else {
                let plain: String = serde_json::from_str(text).map_err(M::Error::custom)?;
                if plain.contains('\0') {
                    *self.failure = Some(FieldError::at(index, FieldErrorKind::Nul));
                    continue;
                }
                self.fields.set_owned(index, plain.as_bytes());
            }
        }
        Ok(())
    }
}

/// A key, borrowed where it holds no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_string())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys::new([("a", false), ("b", false), ("j", true)].map(|(name, json)| column(name, json)))
    }

    fn column(name: &str, json: bool) -> KeyColumn {
        KeyColumn {
            name: name.to_string(),
            json,
            any_case: true,
        }
    }

    fn row(line: &str) -> Result<Vec<Option<String>>, FieldError> {
        let mut fields = Fields::default();
        parse(&keys(), Encoding::UTF_8, line.as_bytes(), &mut fields)?;
        Ok((0..fields.len())
            .map(|index| {
                let text = fields.get(line.as_bytes(), index)?;
                Some(String::from_utf8(text.to_vec()).unwrap())
            })
            .collect())
    }

    #[test]
    fn values_become_text_and_json_columns_keep_their_json() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(
            row(r#"{"a": 1.50, "b": "x\ny", "j": "s"}"#).unwrap(),
            [some("1.50"), some("x\ny"), some("\"s\"")]
        );
        assert_eq!(
            row(r#" {"b": {"k": [1, 2]}, "j": null, "a": true} "#).unwrap(),
            [some("true"), some(r#"{"k": [1, 2]}"#), None]
        );
        assert_eq!(
            row(r#"{"\u0061": "", "B": 1}"#).unwrap(),
            [some(""), some("1"), None]
        );
    }

    #[test]
    fn what_is_no_object_of_this_load_is_refused() {
        for line in [
            "[1]",
            "{\"a\": 1",
            "{\"a\": 1} 2",
            "x",
            "{\"a\": \"\\u0000\"}",
            "{\"c\": 1}",
            "{\"a\": 1, \"a\": 1}",
            "{\"a\": null, \"A\": 1}",
            "{\"A\": 1, \"\\u0061\": 1}",
        ] {
            assert!(row(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_key_of_another_case_means_no_column_that_has_a_twin_in_the_table() {
        let alone = |any_case| KeyColumn {
            any_case,
            ..column("a", false)
        };
        for (any_case, found) in [(true, Some(Meaning::Column(0))), (false, None)] {
            let keys = Keys::new([alone(any_case)]);
            let alone = Some(Meaning::Column(0));
            assert_eq!((keys.find("a"), keys.find("A")), (alone, found));
        }
    }

    #[test]
    fn a_skipped_key_is_no_column_and_leaves_the_columns_theirs() {
        let keys = keys().skipping(&["B", "x"].map(str::to_string));
        for (key, found) in [
            ("b", Some(Meaning::Column(1))),
            ("B", Some(Meaning::Skipped)),
            ("X", Some(Meaning::Skipped)),
            ("y", None),
        ] {
            assert_eq!(keys.find(key), found, "{key}");
        }
    }

    #[test]
    fn blank_lines_belong_to_the_record_behind_them() {
        let mut scanned = 0;
        assert_eq!(next_end(b"\n \r\n{}\n{}", &mut scanned), Some(7));
        assert_eq!(scanned, 0);
        assert_eq!(next_end(b"\n", &mut scanned), None);
    }

    proptest! {
        #[test]
        fn any_text_survives_json(a in ".{0,20}", b in "\\PC{0,20}") {
            let line = serde_json::json!({"b": b, "a": a}).to_string();
            match row(&line) {
                Ok(row) => prop_assert_eq!(row, [Some(a), Some(b), None]),
                Err(error) => prop_assert!(a.contains('\0') && error.kind == FieldErrorKind::Nul),
            }
        }
    }
}
