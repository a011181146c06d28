//! Any rung, into temporary tables of the transaction, from which statements take the rows on.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Client;

use super::{RowSlice, Strategy, WriteError};
use crate::target::{Clear, Landing};

/// A rung that writes a temporary table.
pub struct Landed {
    rung: Box<dyn Strategy>,
    clear: Clear,
    /// How rows get from there into what is loaded; `None`: the caller sees to it.
    landing: Option<Arc<Landing>>,
    /// Rows in the files of the table at most, dead ones among them.
    held: usize,
}

/// Rows that are deleted rather than truncated, which behind a savepoint makes three new files: a batch
/// with many bad rows goes in thousands of pieces.
const FEW: usize = 1000;

impl Landed {
    pub(super) fn new(
        rung: Box<dyn Strategy>,
        clear: Clear,
        landing: Option<Arc<Landing>>,
    ) -> Self {
        Landed {
            rung,
            clear,
            landing,
            held: 0,
        }
    }

    async fn write_rows(&mut self, client: &Client, rows: RowSlice<'_>) -> Result<u64, WriteError> {
        let pulse = rows.pulse();
        let (held, sent) = (self.held, rows.remaining());
        let (clear, kept) = match held > FEW {
            true => (&self.clear.many, 0),
            false => (&self.clear.few, held),
        };
        // What fails is taken back: the old files are there again, and may hold dead rows.
        self.held = held + sent;
        // An earlier piece of the transaction may have left its rows. Sent along with the rows, so
        // that it costs no round trip.
        let clear = client.batch_execute(clear);
        let (cleared, written) = futures::join!(clear, self.rung.write(client, rows));
        cleared?;
        let count = written?;
        pulse.beat();
        let stored = match &self.landing {
            Some(landing) => client.execute_typed(&landing.insert, &[]).await?,
            None => count,
        };
        self.held = kept + sent;
        Ok(stored)
    }
}

impl Strategy for Landed {
    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        self.write_rows(client, rows).boxed()
    }

    fn take_note(&mut self) -> Option<String> {
        self.rung.take_note()
    }
}
