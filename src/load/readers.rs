//! The readers of a load: threads that take one source after the other.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::error::Error;
use crate::ledger::Known;
use crate::source::{Format, Input, InputError, ReadOptions, Reader, Shared};

/// Sources that wait for a reader, and what the readers share.
pub struct Sources {
    /// The sources behind the first.
    pub waiting: Mutex<VecDeque<Waiting>>,
    /// What each of them must agree with.
    pub first: First,
    /// How they are read.
    pub options: ReadOptions,
    /// Stored bytes taken from the sources.
    pub taken: Arc<AtomicU64>,
    /// Window, buffers, channel.
    pub shared: Shared,
    /// Whether nothing may be committed if a source cannot be read to its end.
    pub all_or_nothing: bool,
}

/// A source that no reader has taken yet.
pub struct Waiting {
    /// Its number (0-based).
    pub index: usize,
    /// Where it is.
    pub input: Input,
    /// What of it is committed already.
    pub known: Known,
}

/// What every further source must agree with.
pub struct First {
    /// Name of the first source.
    pub name: Arc<str>,
    /// Its format.
    pub format: Format,
    /// The names in its header.
    pub header: Option<Vec<String>>,
    /// Fields of a record.
    pub columns: usize,
}

/// Readers at work.
pub struct Readers(Vec<oneshot::Receiver<Result<(), InputError>>>);

impl Readers {
    /// No readers: nothing is left to read.
    pub fn none() -> Self {
        Readers(Vec::new())
    }

    /// Starts `count` readers; the first one begins with the source that is open.
    pub fn start(count: usize, first: Reader, sources: Sources) -> Self {
        let sources = Arc::new(sources);
        let mut first = Some(first);
        let start = |number| {
            let (answer, reading) = oneshot::channel();
            let (sources, first) = (sources.clone(), first.take());
            let thread = std::thread::Builder::new().name(format!("pgrung-read-{number}"));
            let started = thread.spawn(move || {
                let result = read_all(first, &sources);
                if result.is_err() && sources.all_or_nothing {
                    sources.shared.stop.set();
                }
                // Close the channel before the answer: the workers wait for its end.
                drop(sources);
                // Nobody listens once the load has failed.
                let _ = answer.send(result);
            });
            // Without a thread the answer is dropped, which counts as a failure.
            drop(started);
            reading
        };
        Readers((0..count).map(start).collect())
    }

    /// Waits for all readers.
    ///
    /// # Errors
    /// The first failure.
    pub async fn finish(self) -> Result<(), Error> {
        let mut first_error = None;
        for reading in self.0 {
            // A reader that ends without a word has panicked.
            let result = reading.await.unwrap_or_else(|_| {
                Err(InputError::Read {
                    name: Arc::from("reader"),
                    error: std::io::Error::other("ended unexpectedly"),
                })
            });
            if let Err(error) = result {
                first_error.get_or_insert(Error::Input(error));
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// Reads one source after the other until none waits.
fn read_all(first: Option<Reader>, sources: &Sources) -> Result<(), InputError> {
    let mut limit = sources.options.limit;
    if let Some(first) = first {
        let read = first.run(&sources.shared)?;
        limit = limit.map(|limit| limit.saturating_sub(read));
    }
    while limit != Some(0) && !sources.shared.stop.is_set() {
        let next = sources
            .waiting
            .lock()
            .ok()
            .and_then(|mut waiting| waiting.pop_front());
        let Some(Waiting {
            index,
            input,
            known,
        }) = next
        else {
            break;
        };
        let options = ReadOptions {
            limit,
            ..sources.options.clone()
        };
        let mut reader = Reader::open(index, &input, &options, sources.taken.clone())?;
        sources.first.check(&mut reader)?;
        reader.skip(known);
        let read = reader.run(&sources.shared)?;
        limit = limit.map(|limit| limit.saturating_sub(read));
    }
    Ok(())
}

impl First {
    fn check(&self, reader: &mut Reader) -> Result<(), InputError> {
        if reader.format() != self.format {
            return Err(InputError::OtherFormat {
                name: reader.name().clone(),
                format: reader.format(),
                first: self.format,
            });
        }
        if let Some(header) = &self.header
            && reader.take_header()? != *header
        {
            return Err(InputError::OtherHeader {
                name: reader.name().clone(),
                first: self.name.clone(),
            });
        }
        reader.expect_columns(self.columns);
        Ok(())
    }
}
