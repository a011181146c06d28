//! Sources: opening an input, finding the boundaries of its records, and cutting a record into
//! fields.

mod checksum;
mod clash;
mod compare;
mod compression;
mod csv;
#[cfg(test)]
mod csv_tests;
mod encoding;
#[cfg(test)]
mod encoding_tests;
mod feed;
mod fields;
mod first_line;
mod foreign;
mod line_end;
mod ndjson;
mod parser;
mod reader;
#[cfg(test)]
mod reader_tests;
mod reading;
mod records;
mod scan;
mod splitter;
mod stream;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use checksum::{checksum, join};
pub use compare::{Compared, HEAD, compare, head, is_same};
pub use compression::Compression;
pub use csv::Dialect;
pub use encoding::Encoding;
pub use fields::{FieldError, FieldErrorKind, Fields};
pub use foreign::other_delimiter;
pub use line_end::LineEnd;
pub use ndjson::{KeyColumn, Keys, next_end as next_json_end};
pub use parser::RowParser;
pub use reader::{Downstream, Reader};
pub use reading::{FieldRules, Reading, Skipped};
pub use records::Records;
pub use splitter::Splitter;
pub use stream::Stream;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use crate::span::{Extent, Position};

/// Where rows come from.
#[derive(Debug, Clone)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file, plain or compressed, or a pipe with a name.
    File(PathBuf),
    /// Bytes that the program itself brings, see [`Input::reader`].
    Stream(Stream),
}

impl Input {
    /// Rows from any reader, under a name for messages. It is read once and as a pipe is: what was
    /// taken from it cannot be read again.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn reader(name: &str, reader: impl AsyncRead + Send + 'static) -> Self {
        Input::Stream(Stream::new(name, reader))
    }

    /// The name used in messages.
    pub fn name(&self) -> Arc<str> {
        match self {
            Input::Stdin => Arc::from("stdin"),
            Input::File(path) => Arc::from(path.display().to_string()),
            Input::Stream(stream) => stream.name(),
        }
    }

    /// Stored bytes of an input that is not open yet, where known.
    ///
    /// # Errors
    /// When it is missing or a directory.
    pub fn size(&self) -> Result<Option<u64>, InputError> {
        let Input::File(path) = self else {
            return Ok(None);
        };
        let metadata = path
            .metadata()
            .and_then(|metadata| match metadata.is_dir() {
                true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
                false => Ok(metadata),
            });
        let metadata = metadata.map_err(|error| InputError::read(&self.name(), error))?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Delimited text.
    Csv,
    /// Delimited text with tabs; quotes work as in CSV.
    Tsv,
    /// One JSON object a line.
    Ndjson,
}

impl Format {
    /// The word used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Ndjson => "ndjson",
        }
    }

    /// By the name of the source, else by its first bytes.
    fn detect(input: &Input, head: &[u8]) -> Self {
        let name = input.name().to_ascii_lowercase();
        let packed = [".gz", ".zst", ".lz4", ".bz2", ".xz"];
        let stem = packed
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(&name);
        if [".ndjson", ".jsonl", ".json"]
            .iter()
            .any(|suffix| stem.ends_with(suffix))
        {
            Format::Ndjson
        } else if [".tsv", ".tab"].iter().any(|suffix| stem.ends_with(suffix)) {
            Format::Tsv
        } else if !stem.ends_with(".csv") && head.trim_ascii_start().first() == Some(&b'{') {
            Format::Ndjson
        } else {
            Format::Csv
        }
    }
}

/// How the sources of a load are read, as meant.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// `None`: by the name of the file, else by its first byte.
    pub format: Option<Format>,
    /// `None`: comma, or tab for TSV.
    pub delimiter: Option<u8>,
    /// `None`: no quotes.
    pub quote: Option<u8>,
    /// `None`: the quote.
    pub escape: Option<u8>,
    /// The unquoted field that means NULL.
    pub null: String,
    /// Names of fields, each with a text that means NULL in it instead.
    pub null_in: Vec<(String, String)>,
    /// Whether the first record of delimited text names the columns.
    pub header: bool,
    /// Columns in the order of the fields, instead of the header's names.
    pub columns: Option<Vec<String>>,
    /// Names of the fields that go to no column.
    pub skip: Vec<String>,
    /// What text is written in.
    pub encoding: Encoding,
    /// `None`: by the first bytes.
    pub compression: Option<Compression>,
    /// Longest record in bytes.
    pub max_record_bytes: usize,
    /// Records to read at most, over all sources.
    pub limit: Option<u64>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions {
            format: None,
            delimiter: None,
            quote: Some(b'"'),
            escape: None,
            null: String::new(),
            null_in: Vec::new(),
            header: true,
            columns: None,
            skip: Vec::new(),
            encoding: Encoding::UTF_8,
            compression: None,
            max_record_bytes: 64 << 20,
            limit: None,
        }
    }
}

/// Why a source cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The operating system or the decoder refused.
    #[error("{name}: {}", describe_read(.error))]
    Read {
        /// The source.
        name: Arc<str>,
        /// What was said.
        error: io::Error,
    },
    /// A thread of pgrung has panicked, or could not be started.
    #[error("a reader ended unexpectedly; please report this")]
    Reader,
    /// A packed source ends in mid-stream.
    #[error("{name}: the {compression} data ends too early: the file is truncated; fetch it again", compression = .compression.name())]
    Truncated {
        /// The source.
        name: Arc<str>,
        /// How it is packed.
        compression: Compression,
    },
    /// The packed bytes make no sense.
    #[error("{name}: broken {compression} data: {source}; fetch the file again", compression = .compression.name())]
    Corrupt {
        /// The source.
        name: Arc<str>,
        /// How it is packed.
        compression: Compression,
        /// The decoder's words.
        source: io::Error,
    },
    /// The source ends inside quotes.
    #[error(
        "{name}: {position}: the source ends inside a quoted field that opens in this record: the file is cut off or the quote is a stray one (--quote none reads quotes as text)"
    )]
    UnclosedQuote {
        /// The source.
        name: Arc<str>,
        /// Where the last record begins.
        position: Position,
    },
    /// A record longer than the cap.
    #[error(
        "{name}: {position}: the record is longer than {limit} bytes: look for a stray quote there, or for line ends unlike that of the first line, or raise --max-record-bytes"
    )]
    TooLong {
        /// The source.
        name: Arc<str>,
        /// Where the record begins.
        position: Position,
        /// The cap.
        limit: usize,
    },
    /// The source is in an encoding that is not read.
    #[error(
        "{name}: the file is {encoding}, in which records cannot be told apart before it is decoded: convert it, for example with iconv -f {encoding} -t UTF-8 FILE | pgrung load -"
    )]
    Encoding {
        /// The source.
        name: Arc<str>,
        /// Its encoding.
        encoding: &'static str,
    },
    /// Lines that end in one carriage return too many.
    #[error(
        "{name}: the first line ends in \\r\\r\\n, so a \\r may be a line end or none: the line ends were converted twice; make them \\n, for example with tr -d '\\r'"
    )]
    TwoReturns {
        /// The source.
        name: Arc<str>,
    },
    /// The source is of a kind that is not read.
    #[error("{name}: is {kind}: {advice}")]
    Foreign {
        /// The source.
        name: Arc<str>,
        /// What it is.
        kind: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The settings of delimited text contradict each other.
    #[error("{name}: {clash}")]
    Dialect {
        /// The source.
        name: Arc<str>,
        /// Which of them, and why.
        clash: &'static str,
    },
    /// Delimited text without a single line where a header was due.
    #[error("{name}: the file is empty: a header line was expected; --no-header if it has none")]
    NoHeader {
        /// The source.
        name: Arc<str>,
    },
    /// The header cannot be read.
    #[error("{name}: header, line {line}: {source}{}", perhaps(.delimiter))]
    Header {
        /// The source.
        name: Arc<str>,
        /// Line of the header (1-based).
        line: u64,
        /// What is wrong.
        source: FieldError,
        /// The delimiter that it may be written with instead.
        delimiter: Option<&'static str>,
    },
    /// The source is not the one that the ledger knows.
    #[error("{name}: {place} {change}; {LOAD_ANEW}")]
    Changed {
        /// The source.
        name: Arc<str>,
        /// The committed span in which the difference shows.
        place: Extent,
        /// What is different.
        change: Change,
    },
    /// A file has changed since it was opened.
    #[error(
        "{name}: the file was written to, or cut, while it was read; let it become whole and run the same command again: what is loaded of it is compared then"
    )]
    Moving {
        /// The source.
        name: Arc<str>,
    },
    /// A file ends within a record, as one does that is still being written.
    #[error(
        "{name}: {position}: the file ends in the middle of this record, without a line break: complete the file and run the same command again, only what is missing is loaded then; if the record is meant to be so, end it with a line break"
    )]
    CutOff {
        /// The source.
        name: Arc<str>,
        /// Where the last record begins.
        position: Position,
    },
    /// A further source names other columns than the first.
    #[error(
        "{name}: the header differs from that of {first}: every file of one load needs the same columns in the same order; load it separately"
    )]
    OtherHeader {
        /// The source.
        name: Arc<str>,
        /// The first source.
        first: Arc<str>,
    },
    /// A further source is written in another format than the first.
    #[error("{name}: is {format}, but the first file of this load is {first}: load it separately, or name the --format", format = .format.name(), first = .first.name())]
    OtherFormat {
        /// The source.
        name: Arc<str>,
        /// Its format.
        format: Format,
        /// The format of the first source.
        first: Format,
    },
}

/// The way out where rows of another content are in the table.
pub const LOAD_ANEW: &str = "--restart, with it as the only input, loads it as it is now; what the table has of it stays there";

/// How a source differs from the one that the ledger knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Change {
    /// Other bytes, or records elsewhere.
    #[error("are not those that were loaded from there")]
    Bytes,
    /// The last record was loaded as it stood at the end of the source, without a line break.
    #[error(
        "were loaded when the source ended there without a line break; now their last record goes on"
    )]
    GoesOn,
    /// Nothing tells.
    #[error(
        "were loaded by a pgrung that kept no checksum of them: nothing proves that they are the same"
    )]
    Unknown,
}

impl InputError {
    fn read(name: &Arc<str>, source: io::Error) -> Self {
        InputError::Read {
            name: name.clone(),
            error: source,
        }
    }

    fn unpack(name: &Arc<str>, compression: Compression, source: io::Error) -> Self {
        let name = name.clone();
        match source.kind() {
            _ if compression == Compression::None => InputError::Read {
                name,
                error: source,
            },
            io::ErrorKind::UnexpectedEof => InputError::Truncated { name, compression },
            _ if source.raw_os_error().is_some() => InputError::Read {
                name,
                error: source,
            },
            _ => InputError::Corrupt {
                name,
                compression,
                source,
            },
        }
    }
}

fn perhaps(delimiter: &Option<&'static str>) -> String {
    delimiter.map_or(String::new(), |flag| {
        format!("; or its fields are divided otherwise: --delimiter {flag}")
    })
}

fn describe_read(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_string(),
        io::ErrorKind::IsADirectory => {
            "is a directory: name the files in it, for example 'dir/*.csv'".to_string()
        }
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        _ => error.to_string(),
    }
}
