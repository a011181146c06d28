//! Bytes that the program itself brings: any reader of its runtime, for a thread that waits.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::Handle;

/// A reader that waits to be opened, once. Clones are the same reader.
#[derive(Clone)]
pub struct Stream {
    name: Arc<str>,
    unopened: Arc<Mutex<Option<Opened>>>,
}

/// A reader that is read.
pub struct Opened {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    runtime: Handle,
}

impl Stream {
    pub(super) fn new(name: &str, reader: impl AsyncRead + Send + 'static) -> Self {
        let opened = Opened {
            reader: Box::pin(reader),
            runtime: Handle::current(),
        };
        Stream {
            name: Arc::from(name),
            unopened: Arc::new(Mutex::new(Some(opened))),
        }
    }

    pub(super) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    pub(super) fn open(&self) -> io::Result<Opened> {
        let mut unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        let again = || io::Error::other("was read before and cannot be read again");
        unopened.take().ok_or_else(again)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.name).finish()
    }
}

impl Opened {
    /// Reads if there are bytes within `wait`. For a thread outside of the runtime.
    pub(super) fn read_within(
        &mut self,
        wait: Duration,
        into: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let read = async { tokio::time::timeout(wait, self.reader.read(into)).await };
        self.runtime.block_on(read).ok().transpose()
    }
}
