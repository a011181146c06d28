//! One load from end to end: prepare (all that can fail), run, watch, close, account.

mod close;
mod columns;
mod connection;
mod control;
mod engine;
mod identities;
mod lease;
mod leftovers;
mod merging;
mod origin;
mod prepare;
mod proof;
mod publish;
mod readers;
mod rehearsing;
mod rejects;
mod replay;
mod rights;
mod running;
mod sessions;
mod staging;
mod start;
mod watch;
mod workers;

use std::time::Instant;

use self::close::{close, export};
use self::lease::Held;
use self::merging::{abandon, merge};
use self::prepare::{Prepared, prepare};
use self::running::Running;
use self::watch::Watch;
use crate::connect::ConnectSettings;
use crate::error::Error;
use crate::job::LoadSettings;
use crate::ledger::LedgerError;

pub use connection::ControlConnection;
pub use control::Control;
pub use rejects::{Rejects, rejects, told};
pub use replay::{Replayed, replay};
pub use running::LoadEnd;

/// Loads. Committed rows stay committed whatever happens later; the end says how many.
pub async fn load(server: &ConnectSettings, settings: &LoadSettings, control: &Control) -> LoadEnd {
    let mut connection = ControlConnection::new(server, settings.retries, &control.console);
    let mut held = None;
    let prepared = tokio::select! {
        prepared = prepare(settings, &mut connection, control, &mut held) => prepared,
        () = control.stop.wait() => Err(Error::interrupted(&control.stop)),
    };
    let (mut connection, end) = match prepared {
        Ok(prepared) => {
            let settings = prepared.settle_workers(settings, control);
            run(prepared, connection, held.as_ref(), &settings, control).await
        }
        Err(error) => (
            connection,
            LoadEnd {
                error: Some(error),
                ..LoadEnd::default()
            },
        ),
    };
    if let Some(held) = held {
        held.give_back(&mut connection).await;
    }
    end
}

/// Everything is ready; from here on rows move.
async fn run(
    prepared: Prepared,
    connection: ControlConnection,
    held: Option<&Held>,
    settings: &LoadSettings,
    control: &Control,
) -> (ControlConnection, LoadEnd) {
    let started = Instant::now();
    let leftover_rejects = prepared.leftover_rejects;
    let (engine, mut running, displays) = prepared.start(settings, control);
    let watch = Watch::start(connection, &running, settings);

    let (stop, following) = lease::follow(&control.stop, held);
    let result = engine.run(&stop).await;
    following.abort();
    let writing = started.elapsed();
    let (mut connection, looks) = watch.end().await;
    let result = result.and(running.check_spill());
    let result = match (result, &running.staged, held) {
        (Ok(()), _, Some(held)) if held.is_lost() => {
            Err(LedgerError::TakenOver(held.lease.job().to_string()).into())
        }
        // A signal is no failure of the engine; nothing is closed after it.
        (Ok(()), ..) if control.stop.is_set() => Ok(()),
        (Ok(()), Some(staged), Some(held)) => {
            let merged = merge(
                &mut connection,
                &running,
                staged,
                &held.lease,
                settings,
                control,
            );
            merged.await
        }
        (Ok(()), _, held) => finish(&mut connection, &running, held, settings, control).await,
        (Err(error), ..) => Err(error),
    };
    running.settle_staged(&result);
    // A load that has given up on the server, or is to end, does not begin to wait for it here.
    let again = result.is_ok() && !control.stop.is_set();
    let exported = export(&mut connection, &running, settings, control, again).await;
    let merging = started.elapsed();
    let result = match &result {
        _ if settings.rehearses || matches!(result, Err(Error::Guard { .. })) => {
            match abandon(&mut connection, &running).await {
                Ok(()) => result,
                Err(error) => Err(error),
            }
        }
        _ => result,
    };
    displays.end().await;

    let interrupted = control.stop.signal().map(Error::Interrupted);
    if let (Some(_), Err(error)) = (&interrupted, &exported) {
        control.console.notice(&error.chain());
    }
    running.tell(control);
    let end = LoadEnd {
        summary: Some(running.summary(settings, started.elapsed(), writing, looks)),
        error: result.err().or(interrupted).or(exported.err()),
        target: Some(running.target),
        counters: running.counters,
        leftover_rejects,
        rehearsal: running.rehearsal.and_then(|rehearsal| {
            let rehearsal = rehearsal.into_inner().ok()?;
            Some(rehearsal.within(writing, merging.saturating_sub(writing)))
        }),
    };
    (connection, end)
}

/// Closes a load whose rows are in their table.
async fn finish(
    connection: &mut ControlConnection,
    running: &Running,
    held: Option<&Held>,
    settings: &LoadSettings,
    control: &Control,
) -> Result<(), Error> {
    if let Some(held) = held {
        held.check(connection).await?;
    }
    close(connection, running, settings, control).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send(_: impl Send) {}

    #[test]
    fn a_load_can_be_spawned() {
        let server = ConnectSettings::from_config(tokio_postgres::Config::new());
        let (settings, control) = (LoadSettings::default(), Control::default());
        is_send(load(&server, &settings, &control));
    }
}
