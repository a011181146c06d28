//! Any rung, into a temporary table, from which one statement takes the rows on.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Client;

use super::{RowSlice, Strategy, WriteError};
use crate::target::Landing;

/// A rung that writes the temporary table of a [`Landing`].
pub struct Landed {
    rung: Box<dyn Strategy>,
    landing: Arc<Landing>,
    /// Rows in the files of the table at most, dead ones among them.
    held: usize,
}

/// Rows that are deleted rather than truncated, which behind a savepoint makes three new files: a batch
/// with many bad rows goes in thousands of pieces.
const FEW: usize = 1000;

impl Landed {
    pub(super) fn new(rung: Box<dyn Strategy>, landing: Arc<Landing>) -> Self {
        Landed {
            rung,
            landing,
            held: 0,
        }
    }

    async fn write_rows(&mut self, client: &Client, rows: RowSlice<'_>) -> Result<u64, WriteError> {
        let pulse = rows.pulse();
        let (held, sent) = (self.held, rows.remaining());
        let (clear, kept) = match held > FEW {
            true => (&self.landing.truncate, 0),
            false => (&self.landing.clear, held),
        };
        // What fails is taken back: the old files are there again, and may hold dead rows.
        self.held = held + sent;
        // An earlier piece of the transaction may have left its rows. Sent along with the rows, so
        // that it costs no round trip.
        let clear = client.batch_execute(clear);
        let (cleared, written) = futures::join!(clear, self.rung.write(client, rows));
        cleared?;
        written?;
        pulse.beat();
        let stored = client.execute_typed(&self.landing.insert, &[]).await?;
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
