//! Writes rejects to a file in the source's own format, and the reasons beside it as NDJSON.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Why a record was rejected: one line of the reasons file.
#[derive(Debug, Clone, Serialize)]
pub struct Reason<'a> {
    pub source: &'a str,
    /// Number of the record (1-based).
    pub record: u64,
    /// Number of its first line (1-based).
    pub line: u64,
    /// First byte in the uncompressed source (0-based).
    pub start_byte: u64,
    /// Byte behind the last one.
    pub end_byte: u64,
    pub sqlstate: &'a str,
    /// The column at fault.
    pub column: Option<&'a str>,
    /// The constraint at fault.
    pub constraint: Option<&'a str>,
    pub message: &'a str,
}

/// How the records of a file stand in it.
#[derive(Debug, Clone, Default)]
pub struct RejectLayout {
    /// The header line without its end; empty if the source had none.
    pub header: Vec<u8>,
    /// How a line ends whose own end does not tell.
    pub line_end: &'static [u8],
}

/// A file of rejects. It can be loaded again as it is; the header comes first if the source had
/// one.
pub struct RejectFile {
    records: BufWriter<File>,
    reasons: BufWriter<File>,
    path: PathBuf,
    layout: RejectLayout,
    /// Whether the header is written.
    begun: bool,
}

impl RejectFile {
    /// Opens the two files anew, readable by the owner only: rejects are data.
    pub fn create(path: &Path, layout: RejectLayout) -> io::Result<Self> {
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(path).map(BufWriter::new)
        };
        Ok(RejectFile {
            records: open(path)?,
            reasons: open(&reasons_path(path))?,
            path: path.to_path_buf(),
            layout,
            begun: false,
        })
    }

    /// Where the records go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one record, with the line end of the file.
    pub fn push(&mut self, original: &[u8], reason: &Reason<'_>) -> io::Result<()> {
        let RejectLayout { header, line_end } = &mut self.layout;
        if !self.begun {
            // As the first record ends all do: a file has one kind of line end.
            if original.ends_with(b"\r\n") {
                *line_end = b"\r\n";
            }
            if !header.is_empty() {
                self.records.write_all(header)?;
                self.records.write_all(line_end)?;
            }
        }
        self.begun = true;
        if original.ends_with(line_end) {
            self.records.write_all(original)?;
        } else {
            let text = original.strip_suffix(b"\n").unwrap_or(original);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            self.records.write_all(text)?;
            self.records.write_all(line_end)?;
        }
        serde_json::to_writer(&mut self.reasons, reason)?;
        self.reasons.write_all(b"\n")
    }

    /// Forgets all records.
    pub fn clear(&mut self) -> io::Result<()> {
        self.flush()?;
        for file in [&mut self.records, &mut self.reasons] {
            file.get_mut().set_len(0)?;
            file.rewind()?;
        }
        self.begun = false;
        Ok(())
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.records.flush()?;
        self.reasons.flush()
    }
}

pub fn reasons_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".reasons.ndjson");
    PathBuf::from(name)
}
