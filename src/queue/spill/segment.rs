//! One segment file: a header that says whose batches these are, then frames, each under a key
//! made of the header's checksum and its own place.
//!
//! ```text
//! "pgrspill" | version u32 | length u32 | JSON | XXH3-64 of all before u64 | frame | frame | ...
//! ```

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::frame::{Codec, HEAD_BYTES};
use super::{Identity, SpillError};
use crate::batch::Batch;

const MAGIC: &[u8; 8] = b"pgrspill";

/// Grows when a header or frame changes its form.
const VERSION: u32 = 3;

/// Longest JSON of a header: ten thousand long names of sources.
const MOST_JSON_BYTES: usize = 16 << 20;

/// Bytes in front of the JSON.
const PREFIX_BYTES: usize = 16;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Number of the segment in its run (0-based).
    pub number: u64,
    /// When the run began, in microseconds since 1970.
    pub begun_micros: u64,
    /// Whose batches these are.
    pub identity: Identity,
}

/// A segment that is being written or waits for being read. Its file is opened when needed, so
/// that any number of segments takes no file handles.
#[derive(Debug)]
pub struct Segment {
    pub path: PathBuf,
    /// The header's checksum, of which every frame's key is made.
    seed: u64,
    /// Where the next frame is read.
    pub at: u64,
    /// Behind the last frame.
    pub end: u64,
}

/// What stands at the next place of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A whole frame; it is in the batch.
    Frame,
    End,
    /// The beginning of a frame and the end of the file: it was being written.
    Torn,
    /// Bytes that are no frame, or not the one that was written.
    Damaged,
}

impl Segment {
    /// Creates the file, which must not exist, with mode 0600, and writes the header. A file that
    /// cannot take the header is removed again.
    pub fn create(path: PathBuf, header: &Header) -> Result<(Self, File), SpillError> {
        let bytes = encode(header).map_err(|error| SpillError::at(&path, error))?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| SpillError::at(&path, error))?;
        if let Err(error) = file.write_all_at(&bytes.0, 0) {
            // It holds no batch; the error to tell is the first one.
            let _ = std::fs::remove_file(&path);
            return Err(SpillError::at(&path, error));
        }
        let end = bytes.0.len() as u64;
        let segment = Segment {
            path,
            seed: bytes.1,
            at: end,
            end,
        };
        Ok((segment, file))
    }

    /// Bytes of the file that a header takes.
    ///
    /// # Errors
    /// When it is too long.
    pub fn header_bytes(header: &Header) -> io::Result<u64> {
        encode(header).map(|(bytes, _)| bytes.len() as u64)
    }

    /// Opens a segment that was left behind. `None` for the header if it is cut or not ours; then
    /// no frame of the file counts.
    ///
    /// # Errors
    /// What the operating system says, and when another version wrote the file.
    pub fn open(path: PathBuf) -> Result<(Self, Option<Header>), SpillError> {
        let file = open(&path).map_err(|error| SpillError::at(&path, error))?;
        let end = length(&file).map_err(|error| SpillError::at(&path, error))?;
        let (at, seed, header) =
            match decode(&file, end).map_err(|error| SpillError::at(&path, error))? {
                Decoded::Header(at, seed, header) => (at, seed, Some(header)),
                Decoded::Broken => (0, 0, None),
                Decoded::Version(version) => return Err(SpillError::Version { path, version }),
            };
        let segment = Segment {
            path,
            seed,
            at,
            end,
        };
        Ok((segment, header))
    }

    /// Appends the frame packed in `codec`. If that fails, what was written of it is cut off again.
    ///
    /// # Errors
    /// What the operating system says; then `true` tells that the file ends with the last whole
    /// frame and can take another one.
    pub fn append(&mut self, file: &File, codec: &mut Codec) -> Result<(), (SpillError, bool)> {
        let frame = codec.seal(self.key(self.end));
        match file.write_all_at(frame, self.end) {
            Ok(()) => {
                self.end += frame.len() as u64;
                Ok(())
            }
            Err(error) => {
                let cut = file.set_len(self.end).is_ok();
                Err((SpillError::at(&self.path, error), cut))
            }
        }
    }

    /// Reads the next frame into `into` and moves behind it. `into` is left in an unknown state
    /// unless a frame is returned.
    pub fn read(
        &mut self,
        file: &File,
        codec: &mut Codec,
        born: Option<Instant>,
        into: &mut Batch,
    ) -> io::Result<Next> {
        let left = self.end.saturating_sub(self.at);
        if left == 0 {
            return Ok(Next::End);
        }
        if left < HEAD_BYTES as u64 {
            return Ok(Next::Torn);
        }
        if !read_whole(file, codec.room(HEAD_BYTES), self.at)? {
            return Ok(Next::Torn);
        }
        let Some(bytes) = codec.head().map(|head| HEAD_BYTES + head.packed) else {
            return Ok(Next::Damaged);
        };
        // Checked before memory is taken: a false length may name gigabytes.
        if bytes as u64 > left || !read_whole(file, codec.room(bytes), self.at)? {
            return Ok(Next::Torn);
        }
        if codec.unpack(self.key(self.at), born, into).is_none() {
            return Ok(Next::Damaged);
        }
        self.at += bytes as u64;
        Ok(Next::Frame)
    }

    /// Whether every frame is read.
    pub fn is_drained(&self) -> bool {
        self.at >= self.end
    }

    /// Under which the frame at `at` is sealed: a frame of another segment, or of another place in
    /// this one, is none.
    fn key(&self, at: u64) -> u64 {
        self.seed ^ at
    }
}

/// Opens a file for reading, unless it is a link or belongs to somebody else: in a directory that
/// others can write to, neither is ours.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)
}

/// Whether this is a regular file of the user who runs this process.
pub fn is_ours(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw()
}

fn length(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if !is_ours(&metadata) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "not a regular file of this user",
        ));
    }
    Ok(metadata.len())
}

/// Fills `room` from the file; false if the file ends before.
fn read_whole(file: &File, room: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(room, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The bytes of a header and its checksum.
fn encode(header: &Header) -> io::Result<(Vec<u8>, u64)> {
    let json = serde_json::to_vec(header)?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= MOST_JSON_BYTES)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the names of the sources are too long for a spill: load fewer at once",
            )
        })?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&json);
    let seed = XxHash3_64::oneshot(&bytes);
    bytes.extend_from_slice(&seed.to_le_bytes());
    Ok((bytes, seed))
}

enum Decoded {
    /// Where the first frame is, the seed, what it says.
    Header(u64, u64, Header),
    /// Cut, garbled, or no header of ours.
    Broken,
    /// Whole, but of another version.
    Version(u32),
}

fn decode(file: &File, end: u64) -> io::Result<Decoded> {
    let mut prefix = [0; PREFIX_BYTES];
    if !read_whole(file, &mut prefix, 0)? || !prefix.starts_with(MAGIC) {
        return Ok(Decoded::Broken);
    }
    let number = |at: usize| {
        u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
    };
    let (version, length) = (number(8), number(12) as usize);
    let total = PREFIX_BYTES + length + 8;
    if length > MOST_JSON_BYTES || total as u64 > end {
        return Ok(Decoded::Broken);
    }
    let mut bytes = vec![0; total];
    if !read_whole(file, &mut bytes, 0)? {
        return Ok(Decoded::Broken);
    }
    let (signed, checksum) = bytes.split_at(total - 8);
    let seed = XxHash3_64::oneshot(signed);
    if checksum != seed.to_le_bytes() {
        return Ok(Decoded::Broken);
    }
    if version != VERSION {
        return Ok(Decoded::Version(version));
    }
    Ok(match serde_json::from_slice(&signed[PREFIX_BYTES..]) {
        Ok(header) => Decoded::Header(total as u64, seed, header),
        Err(_) => Decoded::Broken,
    })
}
