//! Keeps batches in files while the server is slower than the source, and gives them back in the
//! order in which they came (`--overflow spill`).
//!
//! # Files
//!
//! A run writes segments `pgrung-spill-<run>-<n>.seg` of about 16 MiB into the directory the user
//! names, and holds the lock `pgrung-spill-<run>.lock` as long as it lives. Directory 0700 if it
//! has to be made, files 0600, made exclusively. Each batch is one frame: compressed as a whole
//! with LZ4, with a checksum under which it counts only in its own place.
//!
//! # What survives
//!
//! * The process dies, even by kill -9: every frame whose [`Spill::push`] returned is in the
//!   system's page cache and is found by the next run, see [`leftovers`]. A frame being written is
//!   recognised as torn and passed over; it was not accepted yet.
//! * The machine dies: frames that the system had not written out are lost, as it writes them out
//!   whenever it likes (often within 30 s). With [`Spill::sync_segments`] each segment is synced
//!   when it is full, and then at most the last one can be lost. A push is never synced by itself.
//!
//! # Exactly once
//!
//! A popped batch stays on disk until [`Spill::settle`] says that its commit is known; a segment
//! goes when all its batches are settled. After a crash the next run sees some committed batches
//! again; the ledger knows their spans.

mod frame;
mod leftover;
mod lock;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use self::frame::Codec;
use self::lock::Lock;
use self::segment::{Header, Next, Segment};
use crate::batch::Batch;
use crate::source::Reading;

pub use leftover::{Leftover, leftovers};

/// Size at which a segment is closed: small enough that disk comes back soon, large enough that
/// creating and removing files costs nothing beside writing them.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Smallest size at which a segment is closed.
const LEAST_SEGMENT_BYTES: u64 = 64 << 10;

/// Segments that fit into the limit at least: drained batches hold their disk until the whole
/// segment is drained, and that should be a small part of it.
const SEGMENTS_IN_LIMIT: u64 = 8;

/// What all spill files are called.
const PREFIX: &str = "pgrung-spill-";

/// Whose batches are in a spill: what a later run needs to load them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The import that names their run.
    pub import_id: String,
    /// Schema and table, quoted.
    pub table: String,
    /// The sources; [`Batch::source`] is the index.
    pub sources: Vec<SpilledSource>,
    /// How records are read, as the ledger keeps it.
    pub reading: Reading,
}

/// A source of spilled batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpilledSource {
    /// The name used in messages.
    pub name: String,
    /// The import that knows it, and its number there.
    pub import_id: String,
    pub number: i32,
}

/// Why a batch cannot go to disk or come back.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// The limit the user set. The batch was not taken; nothing has changed.
    #[error("the spill is full: {limit} bytes; raise --spill-limit or wait for the server")]
    Full {
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk, or the user's share of it. The batch was not taken; what was written of it is cut
    /// off again.
    #[error("{}: no room on the disk: {source}; make room or name another --spill-dir", .path.display())]
    DiskFull {
        /// The segment.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A batch beyond what one frame can hold.
    #[error("a batch of {bytes} bytes is too large to spill: lower --batch-bytes")]
    TooLarge {
        /// Its raw bytes.
        bytes: usize,
    },
    /// A batch of a source that the identity does not name.
    #[error("the spill knows no source {0}")]
    UnknownSource(usize),
    /// What comes back is not what was written.
    #[error("{}: the batch at byte {at} is damaged: the disk does not give back what was written; load its rows from the source again", .path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where the frame begins.
        at: u64,
    },
    /// Written by another version of pgrung.
    #[error("{}: written in format {version}, which this pgrung does not read: load it with the version that wrote it, or remove it", .path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// The number of the format.
        version: u32,
    },
    /// Anything else that the operating system says.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl SpillError {
    fn at(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                SpillError::DiskFull { path, source }
            }
            _ => SpillError::Io { path, source },
        }
    }

    /// Whether the batch may be pushed again later: there was no room for it.
    pub fn is_full(&self) -> bool {
        matches!(self, SpillError::Full { .. } | SpillError::DiskFull { .. })
    }
}

/// Batches, rows and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub batches: u64,
    pub rows: u64,
    /// Bytes of their frames, compressed.
    pub bytes: u64,
}

/// Batches on disk, first in, first out.
///
/// Memory: two buffers as large as the largest batch so far needs, whatever is on disk. File
/// handles: three. Everything blocks; call it where blocking is allowed.
#[derive(Debug)]
pub struct Spill {
    dir: PathBuf,
    run: String,
    identity: Identity,
    limit: u64,
    segment_bytes: u64,
    sync: bool,
    born: Instant,
    begun_micros: u64,
    lock: Lock,
    codec: Codec,
    segments: VecDeque<Slot>,
    next_number: u64,
    /// The last segment, while it takes frames.
    writer: Option<File>,
    /// The segment being read, by its number.
    reader: Option<(u64, File)>,
    /// Popped batches whose commit is not known yet; as few as the load has buffers.
    unsettled: Vec<Popped>,
    waiting: Amount,
    total: Amount,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    segment: Segment,
    unsettled: usize,
}

#[derive(Debug)]
struct Popped {
    source: usize,
    start_byte: u64,
    segment: u64,
}

impl Spill {
    /// Makes an empty spill in `dir`, which is created with mode 0700 if it is missing. `limit` is
    /// the most bytes that its files may take. Nothing but the lock is written until the first
    /// [`Spill::push`].
    ///
    /// # Errors
    /// When the directory cannot be made or written to.
    pub fn create(dir: &Path, limit: u64, identity: Identity) -> Result<Self, SpillError> {
        let refused = |error| SpillError::at(dir, error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(refused)?;
        let (run, lock) = loop {
            let run = format!("{:016x}", fastrand::u64(..));
            if let Some(lock) = Lock::create(lock_path(dir, &run)).map_err(refused)? {
                break (run, lock);
            }
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Spill {
            dir: dir.to_path_buf(),
            run,
            identity,
            limit,
            segment_bytes: (limit / SEGMENTS_IN_LIMIT).clamp(LEAST_SEGMENT_BYTES, SEGMENT_BYTES),
            sync: false,
            born: Instant::now(),
            begun_micros: since_1970.map_or(0, |time| time.as_micros() as u64),
            lock,
            codec: Codec::default(),
            segments: VecDeque::new(),
            next_number: 0,
            writer: None,
            reader: None,
            unsettled: Vec::new(),
            waiting: Amount::default(),
            total: Amount::default(),
        })
    }

    /// Whether a segment is synced to the disk when it is full; off unless asked for. A loss of
    /// power then takes at most the last segment.
    pub fn sync_segments(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// Puts a batch behind the others.
    ///
    /// # Errors
    /// [`SpillError::Full`] when the files would pass the limit and [`SpillError::DiskFull`] when
    /// the disk is full: the batch is not in the spill, and may be pushed again once others are
    /// settled. After any error the batches pushed before are still there.
    pub fn push(&mut self, batch: &Batch) -> Result<(), SpillError> {
        if batch.source >= self.identity.sources.len() {
            return Err(SpillError::UnknownSource(batch.source));
        }
        let too_large = SpillError::TooLarge {
            bytes: batch.bytes().len(),
        };
        let bytes = self.codec.pack(batch, self.born).ok_or(too_large)? as u64;
        let open = self.writer.is_some()
            && self
                .segments
                .back()
                .is_some_and(|slot| slot.segment.end.saturating_add(bytes) <= self.segment_bytes);
        let header = self.header();
        let header_bytes = match open {
            true => 0,
            false => {
                Segment::header_bytes(&header).map_err(|error| SpillError::at(&self.dir, error))?
            }
        };
        if self.bytes_on_disk() + header_bytes + bytes > self.limit {
            return Err(SpillError::Full { limit: self.limit });
        }
        let file = match self.writer.take().filter(|_| open) {
            Some(file) => file,
            None => self.begin_segment(header)?,
        };
        // An open writer is that of the last segment, and a new one has just become the last.
        let last = self.segments.len() - 1;
        let slot = &mut self.segments[last];
        match slot.segment.append(&file, &mut self.codec) {
            Ok(()) => self.writer = Some(file),
            Err((error, cut)) => {
                self.writer = Some(file).filter(|_| cut);
                let number = slot.number;
                self.remove_if_done(number)?;
                return Err(error);
            }
        }
        for amount in [&mut self.waiting, &mut self.total] {
            amount.batches += 1;
            amount.rows += batch.len() as u64;
            amount.bytes += bytes;
        }
        Ok(())
    }

    /// Moves the oldest batch into `into`; false if there is none. The batch stays on disk until
    /// [`Spill::settle`].
    ///
    /// # Errors
    /// When the disk does not give back what was written; the same again at the next call.
    pub fn pop(&mut self, into: &mut Batch) -> Result<bool, SpillError> {
        // Segments whose last batches are under way come first; there are as few as buffers.
        let Some(slot) = self
            .segments
            .iter_mut()
            .find(|slot| !slot.segment.is_drained())
        else {
            return Ok(false);
        };
        let path = slot.segment.path.clone();
        let refused = |error| SpillError::at(&path, error);
        let file = match self.reader.take() {
            Some((number, file)) if number == slot.number => file,
            _ => segment::open(&path).map_err(refused)?,
        };
        let at = slot.segment.at;
        match slot
            .segment
            .read(&file, &mut self.codec, Some(self.born), into)
            .map_err(refused)?
        {
            Next::Frame => {}
            Next::End | Next::Torn | Next::Damaged => return Err(SpillError::Corrupt { path, at }),
        }
        slot.unsettled += 1;
        self.unsettled.push(Popped {
            source: into.source,
            start_byte: into.start_byte,
            segment: slot.number,
        });
        self.waiting.batches -= 1;
        self.waiting.rows -= into.len() as u64;
        self.waiting.bytes -= slot.segment.at - at;
        self.reader = Some((slot.number, file)).filter(|_| !slot.segment.is_drained());
        Ok(true)
    }

    /// Notes that the commit of the batch that begins at `start_byte` of source number `source` is
    /// known; false if it did not come from here. Removes its segment if it was the last one.
    ///
    /// # Errors
    /// When the segment cannot be removed. The batch is settled all the same.
    pub fn settle(&mut self, source: usize, start_byte: u64) -> Result<bool, SpillError> {
        let found = self
            .unsettled
            .iter()
            .position(|popped| popped.source == source && popped.start_byte == start_byte);
        let Some(found) = found else {
            return Ok(false);
        };
        let number = self.unsettled.swap_remove(found).segment;
        if let Ok(index) = self.find(number) {
            self.segments[index].unsettled -= 1;
        }
        self.remove_if_done(number)?;
        Ok(true)
    }

    /// Batches that wait on disk.
    #[cfg(test)]
    pub fn len_batches(&self) -> u64 {
        self.waiting.batches
    }

    /// Whether no batch waits on disk. Popped ones may still be unsettled.
    pub fn is_empty(&self) -> bool {
        self.waiting.batches == 0
    }

    /// Batches popped whose commit is not known yet.
    #[cfg(test)]
    pub fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// Bytes that the files take, batches that are popped or settled included as long as their
    /// segment is there.
    pub fn bytes_on_disk(&self) -> u64 {
        self.segments.iter().map(|slot| slot.segment.end).sum()
    }

    /// What waits on disk.
    pub fn waiting(&self) -> Amount {
        self.waiting
    }

    /// All that was ever pushed.
    pub fn total(&self) -> Amount {
        self.total
    }

    /// Name of the run in the names of its files.
    #[cfg(test)]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Ends the spill. What is not settled stays for the next run, synced to the disk if segments
    /// are; where nothing is left, no file is left. Dropping does the same, except for the sync.
    #[cfg(test)]
    pub fn close(mut self) -> Result<(), SpillError> {
        self.end_segment()
    }

    fn header(&self) -> Header {
        Header {
            number: self.next_number,
            begun_micros: self.begun_micros,
            identity: self.identity.clone(),
        }
    }

    fn begin_segment(&mut self, header: Header) -> Result<File, SpillError> {
        self.end_segment()?;
        let number = self.next_number;
        let path = segment_path(&self.dir, &self.run, number);
        let (segment, file) = Segment::create(path, &header)?;
        self.next_number += 1;
        self.segments.push_back(Slot {
            number,
            segment,
            unsettled: 0,
        });
        Ok(file)
    }

    /// Syncs the last segment, if segments are synced and it is not yet.
    fn end_segment(&mut self) -> Result<(), SpillError> {
        self.writer = None;
        let Some(slot) = self.segments.back().filter(|_| self.sync) else {
            return Ok(());
        };
        // A read-only handle syncs the file as well as the one that wrote it.
        segment::open(&slot.segment.path)
            .and_then(|file| file.sync_data())
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(|error| SpillError::at(&slot.segment.path, error))
    }

    fn find(&self, number: u64) -> Result<usize, usize> {
        self.segments
            .binary_search_by_key(&number, |slot| slot.number)
    }

    /// Removes the segment if nothing in it is waiting or unsettled.
    fn remove_if_done(&mut self, number: u64) -> Result<(), SpillError> {
        let Ok(index) = self.find(number) else {
            return Ok(());
        };
        let slot = &self.segments[index];
        if !slot.segment.is_drained() || slot.unsettled > 0 {
            return Ok(());
        }
        if index + 1 == self.segments.len() {
            self.writer = None;
        }
        if self
            .reader
            .as_ref()
            .is_some_and(|(open, _)| *open == number)
        {
            self.reader = None;
        }
        match self.segments.remove(index) {
            Some(slot) => lock::remove(&slot.segment.path)
                .map_err(|error| SpillError::at(&slot.segment.path, error)),
            None => Ok(()),
        }
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.segments.is_empty() {
            // A lock file that stays is removed by the next run.
            let _ = self.lock.remove();
        }
    }
}

fn lock_path(dir: &Path, run: &str) -> PathBuf {
    dir.join(format!("{PREFIX}{run}.lock"))
}

fn segment_path(dir: &Path, run: &str, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{run}-{number}.seg"))
}
