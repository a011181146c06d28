//! Whether a file holds what the ledger knows of it: found by reading it, never by its size or time.

use std::sync::Arc;

use super::checksum::{Checksum, checksum};
use super::records::Records;
use super::{Input, InputError, ReadOptions};
use crate::span::Known;

/// Bytes at the beginning of a source by which the ledger looks for it: if they differ the
/// sources do, if they are the same the sources are compared.
pub const HEAD: usize = 64 * 1024;

/// What was found in a source that holds every committed span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Whether the spans are all of it: no byte between header and end is outside of them.
    pub whole: bool,
}

/// The checksum of the first bytes of a file, uncompressed; `None` for what cannot be read twice.
///
/// # Errors
/// When it cannot be read or unpacked.
pub fn head(input: &Input, options: &ReadOptions) -> Result<Option<u64>, InputError> {
    // Not opened before it is known to be a file: to open a pipe is to wait for its writer.
    if input.size()?.is_none() {
        return Ok(None);
    }
    let options = ReadOptions {
        max_record_bytes: ReadOptions::default().max_record_bytes,
        ..options.clone()
    };
    let mut records = Records::open(input, &options, Arc::default())?;
    // What cannot be read of it is for whoever loads it.
    let head = records.peek(HEAD).map(checksum);
    Ok(Some(head.unwrap_or_default()))
}

/// Reads a file from its start to behind the last committed span and compares all of them.
/// `header`: the names that its header must have; `fields`: how many a record has.
///
/// # Errors
/// [`InputError::Changed`] with the first span that is not there, another header, and what else
/// keeps the file from being read.
pub fn compare(
    input: &Input,
    options: &ReadOptions,
    header: Option<&[String]>,
    fields: usize,
    known: &Known,
) -> Result<Compared, InputError> {
    let mut records = Records::open(input, options, Arc::default())?;
    if let Some(header) = header
        && records.take_header()? != header
    {
        return Err(InputError::OtherHeader {
            name: records.name().clone(),
            first: "what was loaded before".into(),
        });
    }
    let mut whole = true;
    for span in known {
        let gap = span.start.saturating_sub(records.at.byte);
        whole &= gap == 0;
        records.pass_bytes(gap, &mut Checksum::new())?;
        records.pass(span)?;
    }
    // Blank lines behind the last record are no rest, but where they are records. What cannot be
    // read of the rest is for whoever loads it.
    while whole {
        match records.next_byte() {
            Ok(Some(b'\r' | b'\n')) if fields > 1 => records.start += 1,
            Ok(rest) => {
                whole = rest.is_none();
                break;
            }
            Err(_) => whole = false,
        }
    }
    Ok(Compared { whole })
}

/// Whether two files hold the same bytes, uncompressed.
///
/// # Errors
/// When one cannot be read.
pub fn is_same(first: &Input, second: &Input, options: &ReadOptions) -> Result<bool, InputError> {
    let content = |input: &Input| {
        let mut records = Records::open(input, options, Arc::default())?;
        let mut passed = Checksum::new();
        records.pass_bytes(u64::MAX, &mut passed)?;
        Ok::<_, InputError>((records.at.byte, passed.value()))
    };
    Ok(content(first)? == content(second)?)
}
