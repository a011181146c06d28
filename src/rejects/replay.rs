//! Loads rejects again from the ledger once the cause is mended, and marks them in the same
//! transaction: each exactly once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::batch::Batch;
use crate::connect::{self, ConnectSettings};
use crate::error::Error;
use crate::ledger;
use crate::retry::Failure;
use crate::source::{Position, RowParser};
use crate::strategy::{CopyFormat, Refused, StrategyKind};
use crate::table::{Table, Target};
use crate::worker::{Isolation, Session};

/// Rejects of one transaction.
const PORTION: i64 = 1_000;

/// A replay as meant.
#[derive(Debug, Clone)]
pub struct ReplayPlan {
    /// Where the server is.
    pub settings: ConnectSettings,
    /// The import whose rejects are loaded.
    pub import_id: String,
    /// How they are written.
    pub strategy: StrategyKind,
    /// Longest wait for one answer of the server.
    pub answer_timeout: Duration,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Rejects that are rows of the table now.
    pub loaded: u64,
    /// Rejects that are still bad, with their new reasons in the ledger.
    pub still_bad: u64,
    /// Time it took.
    pub elapsed: Duration,
}

/// Loads the open rejects of an import, a portion a transaction.
///
/// # Errors
/// When there is no such import, its table has changed, or the server refuses something that is
/// not about a row. Portions committed before stay replayed.
pub async fn replay(plan: &ReplayPlan) -> Result<Replayed, Error> {
    let started = Instant::now();
    let mut client = connect::connect(&plan.settings).await?;
    ledger::require(&mut client).await?;
    let import = client
        .query_opt(
            "SELECT target, columns, reading, target_unlogged FROM pgrung.imports WHERE import_id = $1",
            &[&plan.import_id],
        )
        .await
        .map_err(refused)?
        .ok_or_else(|| Error::Usage(format!("there is no import {}; `pgrung status` lists them", plan.import_id)))?;
    let table = Table::find(&client, import.get(0)).await?;
    let columns: Vec<String> = import.get(1);
    let target = Arc::new(Target {
        table: table.quoted(),
        columns: table.pick(&columns)?,
    });
    drop(client);

    let pool = connect::pool(&plan.settings, 1)?;
    let strategy = plan.strategy.build(target.clone(), CopyFormat::Auto);
    let session = Session::open(&pool, strategy, plan.answer_timeout)
        .await
        .map_err(failed)?;
    let mut replay = Replay {
        parser: RowParser::from_reading(&import.get(2), target.json_columns()),
        tables: if import.get(3) {
            ["pgrung.unlogged_rejects", "pgrung.unlogged_spans"]
        } else {
            ["pgrung.rejects", "pgrung.spans"]
        },
        import_id: &plan.import_id,
        deferrable: table.deferrable,
        can_copy: !table.row_security,
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

struct Replay<'a> {
    import_id: &'a str,
    target: Arc<Target>,
    deferrable: bool,
    can_copy: bool,
    /// Of the rejects and of the spans.
    tables: [&'static str; 2],
    parser: RowParser,
    session: Session,
    total: Replayed,
}

impl Replay<'_> {
    /// Replays the next portion behind reject `last`; the last reject of it, `None` at the end.
    async fn portion(&mut self, last: i64) -> Result<Option<i64>, Error> {
        let [rejects, spans] = self.tables;
        self.session
            .execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await
            .map_err(failed)?;
        let sql = format!(
            "SELECT reject_id, original FROM {rejects}
             WHERE import_id = $1 AND replayed_at IS NULL AND reject_id > $2
             ORDER BY reject_id LIMIT {PORTION} FOR UPDATE"
        );
        let rows = self.query(&sql, &[&self.import_id, &last]).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let Some(next) = ids.last().copied() else {
            self.session.execute("ROLLBACK").await.map_err(failed)?;
            return Ok(None);
        };
        let batch = batch(&rows);
        self.parser.begin(batch.bytes());
        let mut refused_rows = Refused::default();
        let isolation = Isolation {
            batch: &batch,
            piece: batch.len(),
            deferrable: self.deferrable,
            target: &self.target,
            can_copy: self.can_copy,
            stop_at_first: false,
            rail: None,
        };
        let written = isolation
            .write(&mut self.session, &mut self.parser, &mut refused_rows)
            .await
            .map_err(failed)?;
        if written.stored != written.sent {
            // A reject must not vanish: what is not in the table stays one.
            self.session.execute("ROLLBACK").await.map_err(failed)?;
            return Err(Error::Mismatch(format!(
                "the server stored {} of {} rejects without an error: a trigger or rule of {} keeps the others out; these rejects stay as they are",
                written.stored, written.sent, self.target.table,
            )));
        }

        let good: Vec<i64> = (0..ids.len())
            .filter(|index| !refused_rows.contains(*index))
            .map(|index| ids[index])
            .collect();
        let sql = format!(
            "WITH marked AS (
                 UPDATE {rejects} SET replayed_at = now() WHERE reject_id = ANY ($1) AND replayed_at IS NULL
                 RETURNING import_id, source, start_byte
             ), moved AS (
                 UPDATE {spans} p SET loaded = p.loaded + m.count, rejected = p.rejected - m.count
                 FROM (SELECT p.import_id, p.source, p.start_byte, count(*) AS count
                       FROM marked JOIN {spans} p
                         ON p.import_id = marked.import_id AND p.source = marked.source
                        AND marked.start_byte >= p.start_byte AND marked.start_byte < p.end_byte
                       GROUP BY 1, 2, 3) m
                 WHERE p.import_id = m.import_id AND p.source = m.source AND p.start_byte = m.start_byte
                 RETURNING m.count
             )
             SELECT count(*) FROM marked"
        );
        let marked: i64 = self.query(&sql, &[&good]).await?[0].get(0);
        if marked != good.len() as i64 {
            return Err(Error::Mismatch(format!(
                "{marked} of {} replayed rejects could be marked",
                good.len()
            )));
        }
        for (index, refusal) in refused_rows.iter() {
            let sql = format!(
                "UPDATE {rejects} SET sqlstate = $2, column_name = $3, constraint_name = $4, message = $5, rejected_at = now()
                 WHERE reject_id = $1"
            );
            let message = refusal.message.replace('\0', "\\0");
            self.query(
                &sql,
                &[
                    &ids[index],
                    &refusal.sqlstate,
                    &refusal.column_name(&self.target),
                    &refusal.constraint,
                    &message,
                ],
            )
            .await?;
        }
        self.session.execute("COMMIT").await.map_err(failed)?;
        self.total.loaded += good.len() as u64;
        self.total.still_bad += refused_rows.len() as u64;
        Ok(Some(next))
    }

    async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.session
            .answered(self.session.client().query(sql, parameters))
            .await
            .map_err(failed)
    }
}

/// The original bytes as one batch.
fn batch(rows: &[Row]) -> Batch {
    let mut batch = Batch::with_capacity(0);
    batch.restart(
        0,
        &Position {
            byte: 0,
            record: 1,
            line: 1,
        },
        b'\n',
        0,
    );
    for row in rows {
        let original: &[u8] = row.get(1);
        batch.push_run(original, &[original.len() as u32]);
    }
    batch
}

fn failed(failure: Failure) -> Error {
    let what = "the replay stops; what it committed before stays replayed".to_string();
    Error::Delivery {
        advice: failure.sqlstate().and_then(crate::retry::advice),
        failure,
        what,
    }
}

fn refused(error: tokio_postgres::Error) -> Error {
    Error::Server {
        doing: "reading the import",
        error,
    }
}
