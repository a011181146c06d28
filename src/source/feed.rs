//! Brings the bytes of a source: straight from a plain file, through a thread of its own where a
//! read may wait (pipes) or costs work (decompression).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::compression::Compression;
use super::stream::Opened;
use super::{Input, InputError};

/// Bytes moved in one step. Large enough that a system call costs nothing a row, small enough to
/// stay in the second-level cache between reading and splitting.
pub const CHUNK_BYTES: usize = 128 * 1024;

/// Chunks a feeding thread may be ahead of the reader.
const CHUNKS_AHEAD: usize = 2;

/// Longest time in milliseconds until a thread that waits for a pipe hears that it is to take
/// nothing more.
const HEARS_WITHIN: u16 = 50;

/// What one step of a feed brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing until the deadline, or nothing more after [`Feed::close`].
    Idle,
    /// The end of the source.
    End,
}

/// The bytes of one opened source, decompressed.
pub struct Feed {
    way: Way,
    /// Bytes of the input as it is stored, if that is known: the denominator of the progress bar.
    pub size: Option<u64>,
    /// How the input is packed.
    pub compression: Compression,
    /// A file, and what it was when it was opened.
    opened: Option<(File, State)>,
}

/// What changes when a file is written to.
type State = (u64, SystemTime);

enum Way {
    File { file: File, taken: Arc<AtomicU64> },
    Thread(Chunks),
}

struct Chunks {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    used: usize,
    close: Arc<Close>,
}

/// Tells a feeding thread to take nothing more.
#[derive(Default)]
struct Close {
    asked: AtomicBool,
    /// Whether the source was left before its end.
    heard: AtomicBool,
}

impl Feed {
    /// Opens `input`; adds the stored bytes it takes to `taken` as it goes.
    ///
    /// # Errors
    /// When the input is missing, is a directory, may not be read, or is not packed as demanded.
    pub fn open(
        input: &Input,
        compression: Option<Compression>,
        taken: Arc<AtomicU64>,
    ) -> Result<Self, InputError> {
        let fail = |error| InputError::read(&input.name(), error);
        let mut origin = Origin::open(input).map_err(fail)?;
        let mut head = Vec::new();
        // No more than it takes to tell: a slow pipe may hold back its next byte for long.
        while Compression::may_begin(&head) {
            let mut byte = [0];
            match origin.read(&mut byte).map_err(fail)? {
                0 => break,
                _ => head.extend_from_slice(&byte),
            }
        }
        let compression = compression.unwrap_or_else(|| Compression::detect(&head));
        let size = origin.rewind(&mut head).map_err(fail)?;
        let opened = origin.state().map_err(fail)?;
        let origin = match (origin, size) {
            (Origin::File(file), Some(_)) if compression == Compression::None => {
                return Ok(Feed {
                    way: Way::File { file, taken },
                    size,
                    compression,
                    opened,
                });
            }
            (origin, _) => origin,
        };
        let close = Arc::new(Close::default());
        let packed = Counted {
            head: io::Cursor::new(head),
            origin,
            taken,
            close: close.clone(),
        };
        let reader: Box<dyn Read + Send> = if compression == Compression::None {
            Box::new(packed)
        } else {
            let buffered = BufReader::with_capacity(CHUNK_BYTES, packed);
            compression.decoder(Box::new(buffered)).map_err(fail)?
        };
        let chunks = Chunks::start(reader, close).map_err(fail)?;
        Ok(Feed {
            way: Way::Thread(chunks),
            size,
            compression,
            opened,
        })
    }

    /// Whether the file was written to, or cut, since it was opened.
    pub fn has_changed(&self) -> bool {
        let changed = |(file, then): &(File, State)| state(file).is_ok_and(|now| now != *then);
        self.opened.as_ref().is_some_and(changed)
    }

    /// Whether what was read cannot be read again.
    pub fn is_pipe(&self) -> bool {
        self.size.is_none()
    }

    /// Takes nothing more from a source that cannot be read again. What is taken already still
    /// comes, and then [`Step::Idle`], without any further wait.
    pub fn close(&self) {
        if let Way::Thread(chunks) = &self.way {
            chunks.close.asked.store(true, Ordering::SeqCst);
        }
    }

    /// Moves the next bytes into `into`. Waits until `deadline` where a wait is possible at all.
    ///
    /// # Errors
    /// What the operating system or the decoder says.
    pub fn step(&mut self, into: &mut [u8], deadline: Option<Instant>) -> io::Result<Step> {
        match &mut self.way {
            Way::File { file, taken } => loop {
                match file.read(into) {
                    Ok(0) => return Ok(Step::End),
                    Ok(read) => {
                        taken.fetch_add(read as u64, Ordering::Relaxed);
                        return Ok(Step::Bytes(read));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            },
            Way::Thread(chunks) => chunks.step(into, deadline),
        }
    }
}

impl Chunks {
    fn start(mut reader: Box<dyn Read + Send>, close: Arc<Close>) -> io::Result<Self> {
        let (full_in, full) = sync_channel(CHUNKS_AHEAD);
        let (empty, spare) = channel::<Vec<u8>>();
        std::thread::Builder::new()
            .name("pgrung-feed".to_string())
            .spawn(move || feed(&mut *reader, &full_in, &spare))?;
        Ok(Chunks {
            full,
            empty,
            chunk: Vec::new(),
            used: 0,
            close,
        })
    }

    fn step(&mut self, into: &mut [u8], deadline: Option<Instant>) -> io::Result<Step> {
        if self.used == self.chunk.len() {
            let next = match deadline {
                None => self.full.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => {
                    let wait = deadline.saturating_duration_since(Instant::now());
                    self.full.recv_timeout(wait)
                }
            };
            match next {
                // A decoder that is cut short complains.
                Ok(_) | Err(RecvTimeoutError::Disconnected)
                    if self.close.heard.load(Ordering::SeqCst) && !is_more(&next) =>
                {
                    return Ok(Step::Idle);
                }
                Ok(chunk) => {
                    let chunk = chunk?;
                    if chunk.is_empty() {
                        return Ok(Step::End);
                    }
                    let old = std::mem::replace(&mut self.chunk, chunk);
                    self.used = 0;
                    // The thread may have ended; then nobody needs the buffer.
                    let _ = self.empty.send(old);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(Step::Idle),
                // The end is told; a thread that ends without a word has panicked.
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other(
                        "the thread that reads it ended unexpectedly",
                    ));
                }
            }
        }
        let rest = &self.chunk[self.used..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.used += count;
        Ok(Step::Bytes(count))
    }
}

/// Whether a feeding thread has brought bytes.
fn is_more(message: &Result<io::Result<Vec<u8>>, RecvTimeoutError>) -> bool {
    matches!(message, Ok(Ok(chunk)) if !chunk.is_empty())
}

impl Drop for Chunks {
    /// Nobody wants more: a thread that waits for its source ends too.
    fn drop(&mut self) {
        self.close.asked.store(true, Ordering::SeqCst);
    }
}

/// Reads until the end, which it tells by a chunk of no bytes, an error, or until nobody listens
/// any more.
fn feed(
    reader: &mut (dyn Read + Send),
    full: &SyncSender<io::Result<Vec<u8>>>,
    spare: &Receiver<Vec<u8>>,
) {
    loop {
        let mut chunk = spare.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_BYTES, 0);
        let message = match reader.read(&mut chunk) {
            Ok(read) => {
                chunk.truncate(read);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let last = !matches!(&message, Ok(chunk) if !chunk.is_empty());
        if full.send(message).is_err() || last {
            return;
        }
    }
}

fn state(file: &File) -> io::Result<State> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified()?))
}

/// Where the stored bytes come from.
enum Origin {
    File(File),
    Stream(Opened),
}

impl Origin {
    fn open(input: &Input) -> io::Result<Self> {
        let file = match input {
            Input::File(path) => File::open(path)?,
            Input::Stdin => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            Input::Stream(stream) => return stream.open().map(Origin::Stream),
        };
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(Origin::File(file))
    }

    /// Goes back before `head` where that is possible, and forgets it; the stored bytes from there
    /// on, where known.
    fn rewind(&mut self, head: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let Origin::File(file) = self else {
            return Ok(None);
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        file.seek_relative(-(head.len() as i64))?;
        head.clear();
        let position = file.stream_position()?;
        Ok(Some(metadata.len().saturating_sub(position)))
    }

    /// The file, if it is one, and what it is now.
    fn state(&self) -> io::Result<Option<(File, State)>> {
        match self {
            Origin::File(file) if file.metadata()?.is_file() => {
                Ok(Some((file.try_clone()?, state(file)?)))
            }
            _ => Ok(None),
        }
    }

    /// Reads if there are bytes within [`HEARS_WITHIN`]; a read of a pipe cannot be called off.
    fn read_soon(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Origin::File(file) => {
                let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
                match poll(&mut files, PollTimeout::from(HEARS_WITHIN))? {
                    0 => Ok(None),
                    _ => file.read(into).map(Some),
                }
            }
            Origin::Stream(stream) => {
                stream.read_within(Duration::from_millis(HEARS_WITHIN.into()), into)
            }
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_soon(into) {
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Some(read)) => return Ok(read),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Counts the bytes that it takes, until it is to take no more.
struct Counted {
    head: io::Cursor<Vec<u8>>,
    origin: Origin,
    taken: Arc<AtomicU64>,
    close: Arc<Close>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut read = self.head.read(buf)?;
        while read == 0 {
            if self.close.asked.load(Ordering::SeqCst) {
                self.close.heard.store(true, Ordering::SeqCst);
                return Ok(0);
            }
            match self.origin.read_soon(buf)? {
                None => {}
                Some(0) => return Ok(0),
                Some(some) => read = some,
            }
        }
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
