//! Names by its first bytes what is no delimited text and no JSON lines, so that the user hears
//! what the file is instead of what its first bytes are not.

use super::compression::Compression;

/// Bytes that tell: a tar archive has its mark behind the first name.
pub const HEAD_BYTES: usize = 512;

/// What a source is instead, and what to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// With its article.
    pub kind: &'static str,
    pub advice: &'static str,
}

const UNPACK: &str = "unpack it first";
const EXPORT: &str = "export it as CSV first";

/// Marks no text begins with.
const BINARY: [(&[u8], &str, &str); 10] = [
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"PK\x05\x06", "an empty zip archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", UNPACK),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an old Excel or other Office file",
        EXPORT,
    ),
    (b"SQLite format 3\0", "a SQLite database", EXPORT),
    (b"Obj\x01", "an Avro file", EXPORT),
    (b"ARROW1\0", "an Arrow file", EXPORT),
    (b"%PDF-", "a PDF file", "it holds pages, not rows"),
    (
        b"PGCOPY\n\xff\r\n\0",
        "a binary COPY file",
        "load it with psql: \\copy ... WITH (FORMAT binary)",
    ),
];

/// Marks that a word of text may begin with: they count only if a control character is near.
const WORDS: [(&[u8], &str, &str); 3] = [
    (b"PAR1", "a Parquet file", EXPORT),
    (b"ORC", "an ORC file", EXPORT),
    (b"PGDMP", "a pg_dump archive", "restore it with pg_restore"),
];

/// Bytes in which that control character stands.
const NEAR: usize = 16;

/// What begins text that is no rows, in lower case.
const TEXTS: [(&str, &str, &str); 3] = [
    (
        "<!doctype html",
        "a web page",
        "look at it: it may be a login or an error page instead of the data",
    ),
    (
        "<html",
        "a web page",
        "look at it: it may be a login or an error page instead of the data",
    ),
    (
        "<?xml",
        "an XML file",
        "convert it to CSV or JSON lines first",
    ),
];

impl Foreign {
    /// Looks at the first bytes, unpacked.
    pub fn of(head: &[u8]) -> Option<Foreign> {
        let found = packed(head)
            .or_else(|| marked(head))
            .or_else(|| text(head.trim_ascii_start()));
        found.map(|(kind, advice)| Foreign { kind, advice })
    }
}

fn packed(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let kind = match Compression::detect(head) {
        Compression::None => return None,
        Compression::Gzip => "gzip data",
        Compression::Zstd => "zstd data",
        Compression::Lz4 => "lz4 data",
        Compression::Bzip2 => "bzip2 data",
        Compression::Xz => "xz data",
    };
    Some((
        kind,
        "it is packed twice, or --compression is not how it is packed",
    ))
}

fn marked(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let holds = |words: &[u8]| memchr::memmem::find(head, words).is_some();
    if head.starts_with(b"PK\x03\x04") && (holds(b"[Content_Types].xml") || holds(b"xl/")) {
        return Some(("an Excel workbook", "save the sheet as CSV first"));
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(("a tar archive", UNPACK));
    }
    let control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    let near = head.iter().take(NEAR).any(control);
    let words = WORDS.iter().filter(|_| near);
    let mut marks = BINARY.iter().chain(words);
    let (_, kind, advice) = marks.find(|(mark, ..)| head.starts_with(mark))?;
    Some((kind, advice))
}

fn text(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let begins = |word: &str| {
        let begin = head.get(..word.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()))
    };
    if let Some((_, kind, advice)) = TEXTS.iter().find(|(word, ..)| begins(word)) {
        return Some((kind, advice));
    }
    let array = head.strip_prefix(b"[")?.trim_ascii_start();
    array.starts_with(b"{").then_some((
        "a JSON array",
        "write one object a line first, for example with jq -c '.[]'",
    ))
}

/// The encoding of text in which every character takes two or four bytes, by its byte order mark
/// or by the zeros between its first characters.
pub fn wide_encoding(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xfe, 0, 0, ..] => Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] => Some("UTF-32BE"),
        [0xff, 0xfe, ..] => Some("UTF-16LE"),
        [0xfe, 0xff, ..] => Some("UTF-16BE"),
        [a, 0, b, 0, c, 0, ..] if [a, b, c].iter().all(|byte| **byte > 0) => Some("UTF-16LE"),
        [0, a, 0, b, 0, c, ..] if [a, b, c].iter().all(|byte| **byte > 0) => Some("UTF-16BE"),
        _ => None,
    }
}

/// The delimiter, as `--delimiter` takes it, that a header seems to be written with, when it holds
/// another one than it is read with.
pub fn other_delimiter(header: &[u8], delimiter: u8) -> Option<&'static str> {
    let others = [(b';', "';'"), (b'\t', "tab"), (b'|', "'|'"), (b',', ",")];
    let held = |(other, _): &(u8, &str)| *other != delimiter && header.contains(other);
    others.into_iter().find(held).map(|(_, flag)| flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_begins_like_a_mark_is_text() {
        for head in [
            "PAR1,ORC\n1,2\n",
            "ORC\n1\n",
            "PK,name\n",
            "[id],[name]\n",
            "[1,2]\n",
            "<5,6\n",
            "Object\n",
            "",
        ] {
            assert_eq!(Foreign::of(head.as_bytes()), None, "{head}");
            assert_eq!(wide_encoding(head.as_bytes()), None, "{head}");
        }
    }

    #[test]
    fn every_mark_is_found() {
        for (mark, kind, advice) in BINARY {
            assert_eq!(Foreign::of(mark), Some(Foreign { kind, advice }));
        }
        for (mark, kind, advice) in WORDS {
            let head = [mark, &[1, 2]].concat();
            assert_eq!(Foreign::of(&head), Some(Foreign { kind, advice }));
        }
    }
}
