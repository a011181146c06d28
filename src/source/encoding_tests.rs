//! Records and fields of other encodings, found in the bytes as they stand: as in the whole text,
//! decoded at once.

use proptest::prelude::*;

use super::csv::Dialect;
use super::encoding::Encoding;
use super::fields::{FieldError, FieldErrorKind};
use super::ndjson::KeyColumn;
use super::parser::RowParser;
use super::reading::{FieldRules, Reading};
use super::splitter::Splitter;
use super::{ReadOptions, ndjson};

const LABELS: [&str; 14] = [
    "utf-8",
    "windows-1252",
    "iso-8859-2",
    "iso-8859-15",
    "windows-1251",
    "koi8-r",
    "macintosh",
    "shift_jis",
    "euc-jp",
    "gbk",
    "gb18030",
    "big5",
    "euc-kr",
    "x-user-defined",
];

fn encodings() -> impl Iterator<Item = Encoding> {
    LABELS.into_iter().map(|label| label.parse().unwrap())
}

fn columns(count: usize) -> Vec<KeyColumn> {
    let column = |index| KeyColumn {
        name: format!("c{index}"),
        json: false,
        any_case: true,
    };
    (0..count).map(column).collect()
}

/// Every character of the encoding outside ASCII that has at most `longest` bytes, as its bytes.
fn characters(encoding: Encoding, longest: usize) -> Vec<Vec<u8>> {
    let mut beginnings = vec![vec![]];
    let mut characters = Vec::new();
    for _ in 0..longest {
        let mut longer = Vec::new();
        for beginning in beginnings {
            let first = if beginning.is_empty() { 0x80 } else { 0x20 };
            for byte in first..=0xff {
                let mut bytes = beginning.clone();
                bytes.push(byte);
                match encoding.decode(&bytes) {
                    // Some have two code points.
                    Some(_) if encoding.decode(&bytes[..1]).is_none() || bytes.len() == 1 => {
                        characters.push(bytes);
                    }
                    Some(_) => {}
                    None => longer.push(bytes),
                }
            }
        }
        beginnings = longer;
    }
    characters
}

#[test]
fn the_bytes_of_ascii_within_longer_characters_are_known() {
    for encoding in encodings() {
        let mut within = [false; 128];
        let mut characters = characters(encoding, 2);
        // The only ones of four bytes that hold ASCII: lead, digit, lead, digit.
        let four = (0x30..=0x39)
            .flat_map(|digit| [vec![0x81, digit, 0x81, 0x30], vec![0x81, 0x30, 0x81, digit]]);
        characters.extend(four.filter(|bytes| {
            let text = encoding.decode(bytes);
            text.is_some_and(|text| text.chars().count() == 1)
        }));
        assert!(characters.len() > 60, "{encoding:?}");
        for byte in characters.iter().flatten().filter(|byte| byte.is_ascii()) {
            within[usize::from(*byte)] = true;
        }
        for byte in 0..=127 {
            let known = encoding.has_within(byte);
            assert_eq!(known, within[usize::from(byte)], "{encoding:?} {byte:#x}");
        }
        // What divides records and JSON never is.
        assert!(
            b"\n\r\",{}:[]"
                .iter()
                .all(|byte| !encoding.has_within(*byte) || b"{}[]".contains(byte))
        );
    }
}

#[test]
fn only_encodings_whose_records_can_be_found_are_read() {
    for label in ["utf-16", "utf-16be", "iso-2022-jp"] {
        let error = label.parse::<Encoding>().unwrap_err();
        assert!(error.contains("iconv"), "{error}");
    }
    for label in [
        "replacement",
        "hz-gb-2312",
        "utf-7",
        "utf-32",
        "",
        "latin-1",
    ] {
        let error = label.parse::<Encoding>().unwrap_err();
        assert!(error.contains("WHATWG"), "{label}: {error}");
    }
    for (label, name) in [
        ("latin1", "windows-1252"),
        ("UTF8", "UTF-8"),
        ("sjis", "Shift_JIS"),
    ] {
        assert_eq!(label.parse::<Encoding>().unwrap().name(), name);
    }
}

#[test]
fn what_is_no_text_names_its_field() {
    let encoding: Encoding = "shift_jis".parse().unwrap();
    let dialect = Dialect::default();
    let reading = Reading::delimited(&dialect, encoding, false, FieldRules::default());
    let mut parser = RowParser::of(&reading, columns(2));
    let mut kind = |record: &[u8]| {
        parser.begin(record);
        parser.parse(record).unwrap_err()
    };
    // A lead byte without the rest of its character does not swallow the delimiter.
    let no_text = FieldErrorKind::Encoding(encoding);
    assert_eq!(kind(b"a,\x81\n"), FieldError::at(1, no_text.clone()));
    assert_eq!(kind(b"\x81,a\n"), FieldError::at(0, no_text.clone()));
    assert_eq!(kind(b"\"\x81\",\"\x95\\\"\n"), FieldError::at(0, no_text));
    assert_eq!(kind(b"\x95\\,\0\n"), FieldError::at(1, FieldErrorKind::Nul));
}

#[test]
fn a_syntax_error_in_json_names_the_byte_of_the_source() {
    let reading = Reading::ndjson("koi8-r".parse().unwrap(), FieldRules::default());
    let mut parser = RowParser::of(&reading, columns(1));
    // Two letters of two bytes each in UTF-8.
    let error = parser.parse(b"{\"c0\": \"\xc1\xc2\" x}\n").unwrap_err();
    let what = "syntax error at byte 13 of the record".to_string();
    assert_eq!(error.kind, FieldErrorKind::Json(what));
}

/// The records of `text` as rows of `count` fields.
fn rows(reading: &Reading, count: usize, text: &[u8]) -> Vec<Vec<Option<String>>> {
    let mut parser = RowParser::of(reading, columns(count));
    let mut splitter = reading.dialect(count).map(Splitter::new);
    let (mut rest, mut rows, mut scanned) = (text, Vec::new(), 0);
    while !rest.is_empty() {
        let end = match &mut splitter {
            Some(splitter) => splitter.next_end(rest),
            None => ndjson::next_end(rest, &mut scanned),
        };
        let (record, behind) = rest.split_at(end.unwrap());
        parser.begin(record);
        parser.parse(record).unwrap();
        let text = |field: &[u8]| String::from_utf8(field.to_vec()).unwrap();
        let fields = parser.fields_of(record);
        rows.push(fields.map(|field| field.map(text)).collect());
        rest = behind;
    }
    rows
}

/// A cell as characters of the encoding: of ASCII, or one of the others by its place among them.
type Cell = Vec<Result<u8, prop::sample::Index>>;

fn cell() -> impl Strategy<Value = Cell> {
    let ascii = prop::sample::select(b"ab\"\"\\,;|~\n\r \x7f{}/:@^`0".to_vec());
    let character = prop_oneof![
        ascii.prop_map(Ok),
        any::<prop::sample::Index>().prop_map(Err)
    ];
    prop::collection::vec(character, 0..12)
}

fn table() -> impl Strategy<Value = Vec<[Cell; 3]>> {
    prop::collection::vec(prop::array::uniform3(cell()), 1..6)
}

fn bytes(cell: &Cell, characters: &[Vec<u8>]) -> Vec<u8> {
    let bytes = cell.iter().map(|character| match character {
        Ok(byte) => std::slice::from_ref(byte),
        Err(index) => index.get(characters),
    });
    bytes.collect::<Vec<_>>().concat()
}

/// Those of all encodings with their characters, each found once.
fn repertoires() -> &'static [(Encoding, Vec<Vec<u8>>)] {
    static ALL: std::sync::OnceLock<Vec<(Encoding, Vec<Vec<u8>>)>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let all = encodings().map(|encoding| {
            let mut characters = characters(encoding, 2);
            if encoding.name() == "gb18030" {
                let last = 0x30..=0x39;
                characters.extend(last.map(|last| vec![0x90, 0x31, 0x84, last]));
            }
            (encoding, characters)
        });
        all.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn fields_found_in_the_bytes_are_those_of_the_decoded_text(
        table in table(),
        delimiter in prop::sample::select(b",;\t:|@a0 ".to_vec()),
        quoted in any::<bool>(),
    ) {
        for (encoding, characters) in repertoires() {
            if encoding.has_within(delimiter) {
                continue;
            }
            let mut text = Vec::new();
            for row in &table {
                for (place, cell) in row.iter().enumerate() {
                    let mut bytes = bytes(cell, characters);
                    if quoted {
                        let quotes = memchr::memchr_iter(b'"', &bytes).collect::<Vec<_>>();
                        quotes.into_iter().rev().for_each(|quote| bytes.insert(quote, b'"'));
                        bytes = [b"\"", &bytes[..], b"\""].concat();
                    } else {
                        bytes.retain(|byte| !b"\"\n\r".contains(byte) && *byte != delimiter);
                        bytes.insert(0, b'x');
                    }
                    text.extend(bytes);
                    text.push(if place == 2 { b'\n' } else { delimiter });
                }
            }
            let dialect = Dialect { delimiter, ..Dialect::default() };
            let reading = Reading::delimited(&dialect, *encoding, false, FieldRules::default());
            let decoded = encoding.decode(&text).unwrap();
            let mut peer = csv::ReaderBuilder::new();
            let mut peer = peer.has_headers(false).delimiter(delimiter).from_reader(decoded.as_bytes());
            let expected: Vec<Vec<Option<String>>> = peer
                .records()
                .map(|record| record.unwrap().iter().map(|field| Some(field.to_string())).collect())
                .collect();
            prop_assert_eq!(rows(&reading, 3, &text), expected, "{:?} {:?}", encoding, decoded);
        }
    }

    #[test]
    fn json_found_in_the_bytes_is_that_of_the_decoded_text(table in table()) {
        for (encoding, characters) in repertoires() {
            let (mut text, mut expected) = (Vec::new(), Vec::new());
            for row in &table {
                let mut object = Vec::new();
                for (place, cell) in row.iter().enumerate() {
                    // Escaped as JSON has it, before other characters are put in.
                    let mut json = Vec::new();
                    for character in cell {
                        match character {
                            Ok(byte @ (b'"' | b'\\')) => json.extend([b'\\', *byte]),
                            Ok(b'\n') => json.extend(b"\\n"),
                            Ok(b'\r') => json.extend(b"\\r"),
                            Ok(byte) => json.push(*byte),
                            Err(index) => json.extend(index.get(characters)),
                        }
                    }
                    let comma = if place == 0 { "{" } else { ", " };
                    object.extend(format!("{comma}\"c{place}\": \"").bytes());
                    object.extend(json);
                    object.push(b'"');
                }
                object.extend(b"}\n");
                text.extend(object);
                let cells = row.iter().map(|cell| {
                    let bytes = bytes(cell, characters);
                    Some(encoding.decode(&bytes).unwrap().into_owned())
                });
                expected.push(cells.collect::<Vec<_>>());
            }
            let reading = Reading::ndjson(*encoding, FieldRules::default());
            prop_assert_eq!(rows(&reading, 3, &text), expected, "{:?}", encoding);
        }
    }

    /// What comes out of the ledger reads NULL as the options did.
    #[test]
    fn null_is_written_in_the_encoding_too(cell in cell()) {
        for (encoding, characters) in repertoires() {
            let null = encoding.decode(&bytes(&cell, characters)).unwrap().into_owned();
            let dialect = Dialect { null: encoding.encode(&null).into_owned(), ..Dialect::default() };
            let options = ReadOptions { null: null.clone(), encoding: *encoding, ..ReadOptions::default() };
            if dialect.clash(&options).is_some() {
                continue;
            }
            let reading = Reading::delimited(&dialect, *encoding, false, FieldRules::default());
            let reading: Reading = serde_json::from_value(serde_json::json!(reading)).unwrap();
            let record = [&encoding.encode(&null)[..], b",\"", &encoding.encode(&null), b"\"\n"].concat();
            prop_assert_eq!(rows(&reading, 2, &record), [[None, Some(null)]]);
        }
    }
}
