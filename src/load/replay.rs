//! Loads rejects again from the ledger once the cause is mended, and marks them in the same
//! transaction: each exactly once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::columns::mapped;
use super::connection::ControlConnection;
use crate::batch::Batch;
use crate::connect::{self, ConnectSettings};
use crate::error::Error;
use crate::job::LoadSettings;
use crate::ledger::{KnownImport, LedgerError};
use crate::report::Console;
use crate::retry::Failure;
use crate::source::RowParser;
use crate::span::Position;
use crate::strategy::Refused;
use crate::target::{Table, Target};
use crate::worker::{Blame, DeliveryError, Doubts, Isolation, Session};

/// Rejects of one transaction.
const PORTION: i64 = 1_000;

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Rejects that are rows of the table now.
    pub loaded: u64,
    /// Rejects that are still bad, with their new reasons in the ledger.
    pub still_bad: u64,
    pub elapsed: Duration,
}

/// Loads the open rejects of an import with the strategy of `settings`, a portion a transaction.
///
/// # Errors
/// When there is no such import, its table has changed, or the server refuses something that is
/// not about a row. Portions committed before stay replayed.
pub async fn replay(
    server: &ConnectSettings,
    import_id: &str,
    settings: &LoadSettings,
    console: &Console,
) -> Result<Replayed, Error> {
    let started = Instant::now();
    let mut connection = ControlConnection::new(server, settings.retries, console);
    connection.require_ledger().await?;
    let find = |client: Client| async {
        let import = KnownImport::find(&client, import_id).await?;
        let table = Table::find(&client, &import.target).await?;
        import.check_table(&table)?;
        let fields = import.columns.clone();
        let (target, mapping) = mapped(&client, &table, fields, &import.maps, &[]).await?;
        if mapping.is_some_and(|mapping| mapping.asks_for_place()) {
            return Err(LedgerError::Unusable(format!(
                "import {import_id}: its --map asks where records came from, which rejects do not know any more; \
                 to load them: pgrung rejects {import_id} --export FILE, then load that file"
            ))
            .into());
        }
        Ok((client, (import, table, target)))
    };
    let (import, table, target) = connection.ask("reading the import", find).await?;
    connection.forget();

    let pool = connect::pool(server, 1)?;
    let mut tries = connection.tries("connecting");
    let session = loop {
        let (factory, limit) = (settings.strategy_factory(), settings.retries.answer_timeout);
        let opened = Session::open(&pool, &factory, &target, limit).await;
        match opened.map_err(failed) {
            Ok(session) => break session,
            Err(error) => tries.pause(error, true).await?,
        }
    };
    let mut replay = Replay {
        parser: RowParser::of(&import.reading, target.key_columns()),
        import,
        deferrable: table.deferrable,
        can_copy: !table.row_security || target.landing.is_some(),
        rows_need_each_other: table.rows_need_each_other,
        session,
        target,
        total: Replayed::default(),
    };
    let mut last = 0;
    while let Some(next) = replay.portion(last).await? {
        last = next;
    }
    Ok(Replayed {
        elapsed: started.elapsed(),
        ..replay.total
    })
}

struct Replay {
    import: KnownImport,
    target: Arc<Target>,
    deferrable: bool,
    can_copy: bool,
    rows_need_each_other: bool,
    parser: RowParser,
    session: Session,
    total: Replayed,
}

impl Replay {
    /// Replays the next portion behind reject `last`; the last reject of it, `None` at the end.
    async fn portion(&mut self, last: i64) -> Result<Option<i64>, Error> {
        let begin = self.target.begin("BEGIN ISOLATION LEVEL READ COMMITTED");
        self.session.begin(&begin).await.map_err(failed)?;
        let next = self.import.next(self.session.client(), last, PORTION);
        let rejects = self.session.answered(next).await.map_err(failed)?;
        let Some(next) = rejects.last().map(|reject| reject.id) else {
            self.session.rollback().await.map_err(failed)?;
            return Ok(None);
        };
        let mut batch = Batch::with_capacity(0);
        batch.restart(0, &Position::START, b'\n', 0);
        for reject in &rejects {
            batch.push_run(&reject.original, &[reject.original.len() as u32]);
        }
        let refused = self.write(&batch).await?;
        let good: Vec<i64> = (0..)
            .zip(&rejects)
            .filter(|(index, _)| !refused.contains(*index))
            .map(|(_, reject)| reject.id)
            .collect();
        self.mark(&good).await?;
        for (index, refusal) in refused.iter() {
            let (client, id) = (self.session.client(), rejects[index].id);
            let noted = self.import.note_refused(client, &self.target, id, refusal);
            self.session.answered(noted).await.map_err(failed)?;
        }
        let committed = self.session.commit().await;
        committed.map_err(|lost| failed(lost.failure))?;
        self.total.loaded += good.len() as u64;
        self.total.still_bad += refused.len() as u64;
        Ok(Some(next))
    }

    /// Writes the batch; returns the records that are refused again.
    async fn write(&mut self, batch: &Batch) -> Result<Refused, Error> {
        self.parser.begin(batch.bytes());
        let mut refused = Refused::default();
        let isolation = Isolation {
            batch,
            piece: batch.len(),
            deferrable: self.deferrable,
            blame: Blame {
                target: &self.target,
                can_copy: self.can_copy,
                doubts: &Doubts::default(),
            },
            in_vain: false,
            stop_at_first: false,
            last_of_head: None,
            rows_need_each_other: self.rows_need_each_other,
        };
        let written = isolation
            .write(&mut self.session, &mut self.parser, &mut refused)
            .await
            .map_err(failed)?;
        if written.stored != written.sent {
            // A reject must not vanish: what is not in the table stays one.
            self.session.rollback().await.map_err(failed)?;
            return Err(Error::Ledger(LedgerError::Unusable(format!(
                "the server stored {} of {} rejects without an error: a trigger of {} keeps the others out; these rejects stay as they are",
                written.stored, written.sent, self.target.table,
            ))));
        }
        Ok(refused)
    }

    /// Marks rejects as loaded: all of them, or the transaction must not be committed.
    async fn mark(&self, ids: &[i64]) -> Result<(), Error> {
        // Its spans are then younger than any of its rows.
        let settling = self.session.execute("SAVEPOINT pgrung_settle").await;
        settling.map_err(failed)?;
        let marking = self.import.mark_loaded(self.session.client(), ids);
        let marked = self.session.answered(marking).await.map_err(failed)?;
        if marked == ids.len() as i64 {
            return Ok(());
        }
        Err(Error::Ledger(LedgerError::Unusable(format!(
            "{marked} of {} replayed rejects could be marked; nothing of this portion is committed",
            ids.len()
        ))))
    }
}

fn failed(failure: Failure) -> Error {
    let what = "the replay stops; what it committed before stays replayed";
    DeliveryError::gave_up(failure, what).into()
}
