//! Tells one file from another without reading it all: its size and hashes of some of its bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

/// Bytes of each hashed piece.
const PIECE: u64 = 64 * 1024;

/// Pieces spread evenly over the file. A change between them at the same size goes unseen: the
/// price of not reading 6 GB before the first row.
const SPREAD: u64 = 16;

/// What identifies a file: taken from its bytes as they are stored, not from name or times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub size: u64,
    /// Hash of the first piece.
    head: String,
    /// Hash of the last piece.
    tail: String,
    /// Hash of the pieces between.
    spread: String,
}

impl Fingerprint {
    /// Takes the fingerprint of a regular file; `None` for a pipe or device.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        // Not opened before it is known to be a file: to open a pipe is to wait for its writer.
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let file = File::open(path)?;
        let size = metadata.len();
        let mut between = Vec::new();
        let mut hashes = String::new();
        for number in 1..SPREAD {
            read_piece(&file, size / SPREAD * number, size, &mut between)?;
            hashes.push_str(&hash(&between));
        }
        Ok(Some(Fingerprint {
            size,
            head: piece_hash(&file, 0, size)?,
            tail: piece_hash(&file, size.saturating_sub(PIECE), size)?,
            spread: hash(hashes.as_bytes()),
        }))
    }

    /// Whether the file at `path` begins with the whole content that this fingerprint was taken
    /// of, as far as its first and last piece tell.
    pub fn begins(&self, path: &Path) -> io::Result<bool> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(size > self.size
            && piece_hash(&file, 0, self.size)? == self.head
            && piece_hash(&file, self.size.saturating_sub(PIECE), self.size)? == self.tail)
    }
}

fn piece_hash(file: &File, start: u64, end: u64) -> io::Result<String> {
    let mut piece = Vec::new();
    read_piece(file, start, end, &mut piece)?;
    Ok(hash(&piece))
}

/// Reads [`PIECE`] bytes from `start`, fewer if `end` comes first.
fn read_piece(file: &File, start: u64, end: u64, piece: &mut Vec<u8>) -> io::Result<()> {
    let length = PIECE.min(end.saturating_sub(start));
    piece.resize(usize::try_from(length).unwrap_or(0), 0);
    file.read_exact_at(piece, start)
}

pub fn hash(bytes: &[u8]) -> String {
    format!("{:032x}", XxHash3_128::oneshot(bytes))
}

/// A hash of bytes that come piece by piece; `finish_128` in hexadecimal equals [`hash`] of all.
pub fn hash_all() -> XxHash3_128 {
    XxHash3_128::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index % 251) as u8).collect()
    }

    #[test]
    fn a_change_at_either_end_or_in_size_changes_the_fingerprint() {
        let bytes = content(300_000);
        let print = |bytes: &[u8]| Fingerprint::of(file(bytes).path()).unwrap().unwrap();
        let original = print(&bytes);
        assert_eq!(print(&bytes), original);
        for at in [0, 299_999] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(print(&changed), original, "{at}");
        }
        assert_ne!(print(&bytes[..299_999]), original);
        assert_eq!(print(b"").size, 0);
    }

    #[test]
    fn a_grown_file_begins_with_the_old_one() {
        let bytes = content(200_000);
        let original = Fingerprint::of(file(&bytes).path()).unwrap().unwrap();
        let mut grown = bytes.clone();
        grown.extend_from_slice(b"more");
        assert!(original.begins(file(&grown).path()).unwrap());
        assert!(!original.begins(file(&bytes).path()).unwrap());
        grown[199_999] ^= 1;
        assert!(!original.begins(file(&grown).path()).unwrap());
    }
}
