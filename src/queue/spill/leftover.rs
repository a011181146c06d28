//! Finds the spills that crashed runs have left behind, and gives their batches back in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::frame::Codec;
use super::lock::{self, Lock};
use super::segment::{self, Next, Segment, is_ours};
use super::{Identity, PREFIX, SpillError, lock_path};
use crate::batch::Batch;

/// The spill of one run that is no more. While this value lives no other run can take it.
#[derive(Debug)]
pub struct Leftover {
    run: String,
    identity: Option<Identity>,
    begun_micros: u64,
    lock: Lock,
    codec: Codec,
    segments: VecDeque<Segment>,
    reader: Option<File>,
    paths: Vec<PathBuf>,
    bytes: u64,
    loss: Loss,
    damaged: bool,
}

/// What of a spill is no whole batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Segments that end in something else than a whole batch.
    pub segments: u64,
    /// Bytes from there to the ends of those segments. One batch that was being written when its
    /// run died was never accepted, so a few bytes of the last segment need not mean lost rows.
    pub bytes: u64,
}

/// The spills in `dir` that no living run holds: those of the same import one after the other, the
/// oldest first. A directory that does not exist has none. Files that belong to other users are
/// passed over.
///
/// # Errors
/// What the operating system says, and when another version of pgrung wrote a segment.
pub fn leftovers(dir: &Path) -> Result<Vec<Leftover>, SpillError> {
    let refused = |error| SpillError::at(dir, error);
    let runs: BTreeSet<String> = files(dir)
        .map_err(refused)?
        .into_iter()
        .map(|file| file.run)
        .collect();
    let mut found = Vec::new();
    for run in runs {
        let Some(lock) = Lock::take(lock_path(dir, &run)).map_err(refused)? else {
            continue;
        };
        // Listed again under the lock: the run may have removed its files until now.
        let mut segments: Vec<SpillFile> = files(dir).map_err(refused)?;
        segments.retain(|file| file.run == run && file.number.is_some());
        segments.sort_by_key(|file| file.number);
        if segments.is_empty() {
            lock.remove().map_err(refused)?;
            continue;
        }
        let paths = segments.into_iter().map(|file| file.path).collect();
        found.push(Leftover::open(run, lock, paths)?);
    }
    // Imports by the age of their oldest spill, then the spills of an import by their age.
    let mut oldest: BTreeMap<String, u64> = BTreeMap::new();
    for leftover in &found {
        let begun = oldest.entry(leftover.import_id()).or_insert(u64::MAX);
        *begun = leftover.begun_micros.min(*begun);
    }
    found.sort_by_cached_key(|leftover| {
        let import_id = leftover.import_id();
        (
            oldest.get(&import_id).copied(),
            import_id,
            leftover.begun_micros,
            leftover.run.clone(),
        )
    });
    Ok(found)
}

impl Leftover {
    fn open(run: String, lock: Lock, paths: Vec<PathBuf>) -> Result<Self, SpillError> {
        let mut leftover = Leftover {
            run,
            identity: None,
            begun_micros: 0,
            lock,
            codec: Codec::default(),
            segments: VecDeque::new(),
            reader: None,
            paths,
            bytes: 0,
            loss: Loss::default(),
            damaged: false,
        };
        for path in &leftover.paths {
            let (segment, header) = Segment::open(path.clone())?;
            leftover.bytes += segment.end;
            match header {
                Some(header) => {
                    leftover.identity.get_or_insert(header.identity);
                    leftover.begun_micros = header.begun_micros;
                    leftover.segments.push_back(segment);
                }
                None if segment.end == 0 => {}
                None => leftover.loss.add(segment.end),
            }
        }
        Ok(leftover)
    }

    /// Whose batches these are; `None` if no segment says so, and then there is no batch to give
    /// back either.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Name of the run in the names of the files.
    pub fn run(&self) -> &str {
        &self.run
    }

    fn import_id(&self) -> String {
        self.identity
            .as_ref()
            .map(|identity| identity.import_id.clone())
            .unwrap_or_default()
    }

    /// Moves the next batch into `into`; false after the last one. [`Batch::source`] is an index of
    /// [`Identity::sources`] of this leftover; [`Batch::opened`] is now. Batches that the run had
    /// committed may be among them: the ledger knows.
    ///
    /// In each segment reading ends at the first thing that is no whole frame; see
    /// [`Leftover::loss`]. Later segments are still read.
    pub fn pop(&mut self, into: &mut Batch) -> Result<bool, SpillError> {
        let sources = self
            .identity
            .as_ref()
            .map_or(0, |identity| identity.sources.len());
        while let Some(segment) = self.segments.front_mut() {
            let refused = |error| SpillError::at(&segment.path, error);
            let file = match self.reader.take() {
                Some(file) => file,
                None => segment::open(&segment.path).map_err(refused)?,
            };
            let at = segment.at;
            let path = segment.path.clone();
            match segment
                .read(&file, &mut self.codec, None, into)
                .map_err(|error| SpillError::at(&path, error))?
            {
                // A push refuses other sources, so this is never a frame of ours.
                Next::Frame if into.source >= sources => {
                    self.loss.add(segment.end - at);
                    self.damaged = true;
                }
                Next::Frame => {
                    self.reader = Some(file);
                    return Ok(true);
                }
                Next::End => {}
                Next::Torn => {
                    self.loss.add(segment.end - at);
                    // Only the last frame of all can have been under way.
                    self.damaged |= self.segments.len() > 1;
                }
                Next::Damaged => {
                    self.loss.add(segment.end - at);
                    self.damaged = true;
                }
            }
            self.segments.pop_front();
        }
        Ok(false)
    }

    /// What was found to be no whole batch so far; complete once [`Leftover::pop`] returned false.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Whether batches that were accepted cannot be read any more. A last frame that ends early is
    /// no damage: it was being written, and never accepted.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Removes the files. Only when every batch is committed: they are nowhere else.
    ///
    /// # Errors
    /// What the operating system says; files not removed are found again by the next run.
    pub fn remove(self) -> Result<(), SpillError> {
        for path in &self.paths {
            lock::remove(path).map_err(|error| SpillError::at(path, error))?;
        }
        self.lock
            .remove()
            .map_err(|error| SpillError::at(&self.paths[0], error))
    }
}

impl Loss {
    fn add(&mut self, bytes: u64) {
        self.segments += 1;
        self.bytes += bytes;
    }
}

/// A file of some run.
struct SpillFile {
    path: PathBuf,
    run: String,
    number: Option<u64>,
}

/// The spill files of this user in `dir`.
fn files(dir: &Path) -> io::Result<Vec<SpillFile>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some((run, number)) = name.to_str().and_then(parse) else {
            continue;
        };
        // Gone since: its run is alive.
        if entry.metadata().is_ok_and(|metadata| is_ours(&metadata)) {
            files.push(SpillFile {
                path: entry.path(),
                run,
                number,
            });
        }
    }
    Ok(files)
}

/// The run and the number of the segment, `None` for a lock, in the name of a spill file.
fn parse(name: &str) -> Option<(String, Option<u64>)> {
    let rest = name.strip_prefix(PREFIX)?;
    let (run, number) = match rest.strip_suffix(".lock") {
        Some(run) => (run, None),
        None => {
            let (run, number) = rest.strip_suffix(".seg")?.split_once('-')?;
            (run, Some(number.parse().ok()?))
        }
    };
    let is_run = run.len() == 16 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_run.then(|| (run.to_string(), number))
}
