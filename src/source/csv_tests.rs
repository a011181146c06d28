//! Records and fields of delimited text, however they arrive: as the csv crate has them.

use proptest::prelude::*;

use super::csv::{Dialect, parse};
use super::fields::{FieldError, FieldErrorKind, Fields};
use super::line_end::LineEnd;
use super::splitter::Splitter;

/// Records of `text`, fed to the splitter in pieces of `step` bytes.
fn split(dialect: &Dialect, text: &[u8], step: usize) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::new(dialect.clone());
    let mut records = Vec::new();
    let (mut start, mut known) = (0, 0);
    while known < text.len() {
        known = (known + step).min(text.len());
        while let Some(end) = splitter.next_end(&text[start..known]) {
            records.push(text[start..start + end].to_vec());
            start += end;
        }
    }
    if let Some(end) = splitter.last_end(&text[start..]) {
        records.push(text[start..start + end].to_vec());
    }
    records
}

type Cells = Vec<Option<Vec<u8>>>;

fn cells(dialect: &Dialect, record: &[u8]) -> Result<Cells, FieldError> {
    let mut fields = Fields::default();
    parse(dialect, record, &mut fields)?;
    Ok((0..fields.len())
        .map(|index| fields.get(record, index).map(<[u8]>::to_vec))
        .collect())
}

fn texts(line: &str) -> Vec<Option<String>> {
    cells(&Dialect::default(), line.as_bytes())
        .unwrap()
        .into_iter()
        .map(|cell| cell.map(|bytes| String::from_utf8(bytes).unwrap()))
        .collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_string())
}

#[test]
fn unquoted_empty_is_null_and_quoted_empty_is_an_empty_string() {
    assert_eq!(texts("a,,\"\"\r\n"), [some("a"), None, some("")]);
    assert_eq!(texts(",\n"), [None, None]);
}

#[test]
fn doubled_quotes_delimiters_and_line_breaks_inside_quotes_are_text() {
    assert_eq!(
        texts("\"a\"\"b\",\"c,d\",\"e\r\nf\"\n"),
        [some("a\"b"), some("c,d"), some("e\r\nf")]
    );
    assert_eq!(texts("\"\"\"\"\n"), [some("\"")]);
    assert_eq!(texts("\"a\"b,c"), [some("ab"), some("c")]);
}

#[test]
fn what_readers_disagree_about_is_refused() {
    let kind = |line: &str| cells(&Dialect::default(), line.as_bytes()).unwrap_err();
    assert_eq!(
        kind("a,5\" pipe,c\n"),
        FieldError::at(1, FieldErrorKind::StrayQuote)
    );
    assert_eq!(
        kind("a\rb,c\n"),
        FieldError::at(0, FieldErrorKind::CarriageReturn)
    );
    assert_eq!(
        kind("a,\"b\n"),
        FieldError::at(1, FieldErrorKind::UnclosedQuote)
    );
    assert_eq!(
        kind("\"a\"b\"c\"\n"),
        FieldError::at(0, FieldErrorKind::StrayQuote)
    );
}

#[test]
fn an_escape_other_than_the_quote_works_as_in_copy() {
    let dialect = Dialect {
        escape: b'\\',
        ..Dialect::default()
    };
    let cells = cells(
        &dialect,
        br#""a\"b\\c\n","\\"
"#,
    )
    .unwrap();
    assert_eq!(cells, [Some(br#"a"b\c\n"#.to_vec()), Some(b"\\".to_vec())]);
    assert_eq!(split(&dialect, b"\"a\\\"\n\"\nb\n", 1).len(), 2);
}

#[test]
fn blank_lines_are_records_only_for_one_column() {
    let many = Dialect::default();
    assert_eq!(
        split(&many, b"\n\r\na,b\n\n\n", 1),
        [b"\n\r\na,b\n".to_vec()]
    );
    let one = Dialect {
        skip_blank: false,
        ..Dialect::default()
    };
    assert_eq!(split(&one, b"a\n\nb\n", 2).len(), 3);
}

#[test]
fn a_lone_carriage_return_ends_lines_where_the_dialect_says_so() {
    let old = Dialect {
        line_end: LineEnd::Cr,
        ..Dialect::default()
    };
    assert_eq!(
        split(&old, b"a,b\rc,d\r", 1),
        [b"a,b\r".to_vec(), b"c,d\r".to_vec()]
    );
}

#[test]
fn a_line_break_of_another_kind_ends_no_record_and_refuses_the_one_it_stands_in() {
    let dialect = |line_end| Dialect {
        line_end,
        ..Dialect::default()
    };
    for (line_end, text, expected) in [
        (LineEnd::CrLf, &b"a,b\nc\r\n"[..], FieldErrorKind::LineFeed),
        (LineEnd::CrLf, b"a,\"b\"\nc\r\n", FieldErrorKind::LineFeed),
        (LineEnd::CrLf, b"a,b\rc\r\n", FieldErrorKind::CarriageReturn),
        (LineEnd::CrLf, b"a,b\r\r\n", FieldErrorKind::CarriageReturn),
        (LineEnd::Cr, b"a,b\nc\r", FieldErrorKind::LineFeed),
        (LineEnd::Cr, b"\na,b\r", FieldErrorKind::LineFeed),
        (LineEnd::Cr, b"a,b\r\nc\r", FieldErrorKind::CarriageReturn),
        (LineEnd::Cr, b"\r\r\na,b\r", FieldErrorKind::LineFeed),
        (LineEnd::Cr, b"a,b\n", FieldErrorKind::LineFeed),
        (LineEnd::Lf, b"a,b\rc\n", FieldErrorKind::CarriageReturn),
        (LineEnd::Lf, b"a,b\r\r\n", FieldErrorKind::CarriageReturn),
        (LineEnd::Lf, b"a,b\r", FieldErrorKind::CarriageReturn),
    ] {
        let dialect = dialect(line_end);
        for step in 1..4 {
            assert_eq!(split(&dialect, text, step), [text.to_vec()]);
        }
        let error = cells(&dialect, text).unwrap_err();
        assert_eq!(error.kind, expected, "{}", text.escape_ascii());
    }
    let unquoted = Dialect {
        quote: None,
        ..dialect(LineEnd::CrLf)
    };
    assert_eq!(split(&unquoted, b"a\nb\r\nc", 1).len(), 2);
}

#[test]
fn an_open_quote_at_the_end_is_seen_and_a_closing_one_is_not_mistaken_for_it() {
    for (text, open) in [
        (&b"a,\"b"[..], true),
        (b"a,\"b\"", false),
        (b"a,\"b\"\"", true),
        (b"a,b", false),
    ] {
        let mut splitter = Splitter::new(Dialect::default());
        assert_eq!(splitter.next_end(text), None);
        assert_eq!(splitter.ends_quoted(text), open, "{}", text.escape_ascii());
    }
}

/// Pieces of text that meet each other in every way a splitter can get wrong.
const PARTS: &[&str] = &[
    "a", "b", ",", ",", "\n", "\n", "\r\n", "\"", "\"", "\"\"", ",\"", "\",",
];

fn oracle(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
    ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text)
        .byte_records()
        .map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn records_and_fields_equal_those_of_the_csv_crate(
        text in prop::collection::vec(prop::sample::select(PARTS), 0..60)
            .prop_map(|parts| parts.concat().into_bytes()),
        step in 1usize..9,
    ) {
        let dialect = Dialect::default();
        let records = split(&dialect, &text, step);
        let ours: Result<Vec<Cells>, _> =
            records.iter().map(|record| cells(&dialect, record)).collect();
        // The boundaries never depend on how the bytes arrive.
        prop_assert_eq!(&records, &split(&dialect, &text, text.len().max(1)));
        if let Ok(ours) = ours {
            let ours: Vec<Vec<Vec<u8>>> = ours
                .into_iter()
                .map(|row| row.into_iter().map(Option::unwrap_or_default).collect())
                .collect();
            prop_assert_eq!(ours, oracle(&text));
        }
    }

    #[test]
    fn whatever_the_csv_crate_writes_is_read_back(
        rows in prop::collection::vec(prop::collection::vec("[a-c,\"\n\r é]{0,6}", 2..5), 1..8),
        step in 1usize..9,
    ) {
        let mut writer = ::csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        for row in &rows {
            writer.write_record(row).unwrap();
        }
        let text = writer.into_inner().unwrap();
        let dialect = Dialect::default();
        let ours: Vec<Vec<String>> = split(&dialect, &text, step)
            .iter()
            .map(|record| {
                cells(&dialect, record)
                    .unwrap()
                    .into_iter()
                    .map(|cell| String::from_utf8(cell.unwrap_or_default()).unwrap())
                    .collect()
            })
            .collect();
        prop_assert_eq!(ours, rows);
    }
}
