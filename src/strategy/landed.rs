//! Any rung, into temporary tables of the transaction, from which statements take the rows on.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Client;

use super::{RowSlice, Strategy, WriteError};
use crate::target::Landing;

/// A rung that writes a temporary table.
pub struct Landed {
    rung: Box<dyn Strategy>,
    clear: String,
    /// How rows get from there into what is loaded; `None`: the caller sees to it.
    landing: Option<Arc<Landing>>,
}

impl Landed {
    pub(super) fn new(
        rung: Box<dyn Strategy>,
        clear: String,
        landing: Option<Arc<Landing>>,
    ) -> Self {
        Landed {
            rung,
            clear,
            landing,
        }
    }

    async fn write_rows(&mut self, client: &Client, rows: RowSlice<'_>) -> Result<u64, WriteError> {
        let pulse = rows.pulse();
        // An earlier piece of the transaction may have left its rows. Sent along with the rows, so
        // that it costs no round trip.
        let clear = client.batch_execute(&self.clear);
        let (cleared, written) = futures::join!(clear, self.rung.write(client, rows));
        cleared?;
        let count = written?;
        pulse.beat();
        match &self.landing {
            Some(landing) => Ok(client.execute_typed(&landing.insert, &[]).await?),
            None => Ok(count),
        }
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
