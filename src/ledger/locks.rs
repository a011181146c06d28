//! Waits for the locks that an import needs, and ends the transactions that an older run of it has
//! left open. Nobody else's session is ended: it is named, and waited for.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::IMPORT_LOCK;
use super::error::LedgerError;
use crate::connect::{self, ConnectSettings};

/// How long another run's batch may take until its transaction is looked at, and again.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a statement that was cancelled may take to end.
const CANCELLED: Duration = Duration::from_secs(5);

/// Whoever holds this advisory lock is in a transaction of a run of an import: the fence of its
/// batches, or a compaction of its spans. The name of an application proves nothing, anybody can have it.
fn run() -> String {
    format!(
        "SELECT id FROM pg_locks l JOIN unnest($2::text[]) AS id ON l.objid = hashtext(id)::oid
         WHERE l.pid = h.pid AND l.granted AND l.locktype = 'advisory' AND l.objsubid = 2
           AND l.classid = {IMPORT_LOCK}
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         LIMIT 1"
    )
}

/// Awaits `work`, statements of the session of process `pid` that may wait for locks, for `limit`
/// at most. Meanwhile transactions of older runs of these imports that hold it up are ended, and
/// `notify` is told of anybody else who does.
///
/// # Errors
/// What `work` says; who holds it up, when the time is over.
pub(super) async fn past_other_runs<T>(
    work: impl Future<Output = Result<T, LedgerError>>,
    pid: i32,
    import_ids: &[String],
    settings: &ConnectSettings,
    notify: &(dyn Fn(&str) + Sync),
    limit: Duration,
) -> Result<T, LedgerError> {
    let began = Instant::now();
    let mut work = pin!(work);
    let mut beside = Beside {
        pid,
        import_ids,
        settings,
        notify,
        client: None,
        told: String::new(),
    };
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if let Ok(done) = timeout(left.min(PATIENCE), &mut work).await {
            return done;
        }
        let look = timeout(PATIENCE, beside.look());
        let looked = tokio::select! {
            done = &mut work => return done,
            looked = look => looked.unwrap_or(Err(LedgerError::NoAnswer(PATIENCE))),
        };
        if looked.is_err() {
            beside.client = None;
        }
        if began.elapsed() < limit {
            continue;
        }
        // The server would let a statement wait on whose client is gone, with all that it locks.
        let cancelled = async {
            beside.cancel().await;
            (&mut work).await
        };
        if let Ok(Ok(done)) = timeout(CANCELLED, cancelled).await {
            return Ok(done);
        }
        return Err(match looked {
            Ok(holders) if holders.is_empty() => LedgerError::NoAnswer(limit),
            Ok(holders) => LedgerError::Held { holders, limit },
            Err(error) => error,
        });
    }
}

/// A second session, for what the first one cannot do while it waits.
struct Beside<'a> {
    pid: i32,
    import_ids: &'a [String],
    settings: &'a ConnectSettings,
    notify: &'a (dyn Fn(&str) + Sync),
    client: Option<Client>,
    /// The holders that were named last.
    told: String,
}

impl Beside<'_> {
    async fn client(&mut self) -> Result<&Client, LedgerError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => connect::connect(self.settings)
                .await
                .map_err(LedgerError::Connect)?,
        };
        Ok(self.client.insert(client))
    }

    /// Ends older runs' transactions that are in the way, or in the way of who is; names the others.
    async fn look(&mut self) -> Result<String, LedgerError> {
        let run = run();
        let sql = format!(
            "WITH RECURSIVE holding (pid) AS (
                 SELECT unnest(pg_blocking_pids($1))
                 UNION
                 SELECT next FROM holding, unnest(pg_blocking_pids(pid)) AS next
             )
             SELECT h.pid, ({run}) AS run, a.usename::text AS role, a.application_name AS application,
                    a.xact_start::timestamptz(0)::text AS since
             FROM holding h LEFT JOIN pg_stat_activity a ON a.pid = h.pid
             WHERE h.pid <> $1 ORDER BY h.pid"
        );
        let (pid, import_ids) = (self.pid, self.import_ids);
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&pid, Type::INT4), (&import_ids, Type::TEXT_ARRAY)];
        let rows = self.client().await?.query_typed(&sql, &parameters).await?;
        let mut holders = Vec::new();
        for row in &rows {
            let ended = match row.get::<_, Option<&str>>("run") {
                Some(import_id) => self.end(row.get("pid"), import_id).await?,
                None => false,
            };
            if !ended {
                holders.push(describe(row));
            }
        }
        let holders = holders.join("; ");
        if !holders.is_empty() && holders != self.told {
            (self.notify)(&format!(
                "the import waits for locks that others hold, for a limited time (--answer-timeout): {holders}"
            ));
            self.told.clone_from(&holders);
        }
        Ok(holders)
    }

    /// Ends the transaction of an older run, if it still is one; false if this role may not.
    async fn end(&mut self, pid: i32, import_id: &str) -> Result<bool, LedgerError> {
        (self.notify)(&format!(
            "another run of import {import_id} holds a transaction open; taking over"
        ));
        let run = run();
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM (SELECT $1::int AS pid) h WHERE ({run}) IS NOT NULL"
        );
        let import_ids = self.import_ids;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&pid, Type::INT4), (&import_ids, Type::TEXT_ARRAY)];
        match self.client().await?.query_typed(&sql, &parameters).await {
            Ok(_) => Ok(true),
            Err(error) if error.as_db_error().is_some() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the statement that waits.
    async fn cancel(&mut self) {
        let sql = format!("SELECT pg_cancel_backend({})", self.pid);
        if let Ok(client) = self.client().await {
            // Without it the statement is left to itself.
            let _ = client.batch_execute(&sql).await;
        }
    }
}

/// Who it is, as far as this role may know.
fn describe(row: &Row) -> String {
    let pid: i32 = row.get("pid");
    if pid == 0 {
        return "a prepared transaction (pg_prepared_xacts)".to_string();
    }
    let text = |column| row.get::<_, Option<&str>>(column).unwrap_or("unknown");
    format!(
        "process {pid}, role {}, application \"{}\", in a transaction since {}",
        text("role"),
        text("application"),
        text("since")
    )
}
