//! Goes through the open rejects of an import: why they were refused, in groups, and their records
//! into a file, at the end of a load or later.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::Client;

use super::connection::ControlConnection;
use crate::error::Error;
use crate::ledger::{KnownImport, OpenRejects};
use crate::reject_file::{Reason, RejectFile, RejectLayout};
use crate::report::{Reasons, RejectReason};
use crate::span::Position;

/// What is put aside of an import and not replayed yet.
#[derive(Debug, Clone, Default)]
pub struct Rejects {
    /// Records.
    pub count: u64,
    /// Why, the commonest reason first.
    pub reasons: Vec<RejectReason>,
}

/// Says where so many rejects are.
pub fn told(rejects: u64, path: &Path) -> String {
    let path = path.display();
    match rejects {
        1 => format!("1 reject is in {path}"),
        rejects => format!("{rejects} rejects are in {path}"),
    }
}

/// Goes through the open rejects of an import in the ledger, and exports them to `path` if one is
/// named; tells its table, quoted, as well.
///
/// # Errors
/// When there is no such import, or what the server or the operating system says.
pub async fn rejects(
    connection: &mut ControlConnection,
    import_id: &str,
    path: Option<&Path>,
) -> Result<(String, Rejects), Error> {
    let limit = connection.answer_timeout();
    connection.require_ledger().await?;
    let find = |client: Client| async {
        let import = KnownImport::find(&client, import_id).await?;
        Ok((client, import))
    };
    let import = connection.ask("reading the import", find).await?;
    let layout = import.reject_layout();
    let export = path.map(|path| (path, &layout));
    let go = |client: Client| async {
        let found = go_through(&client, &import.open_rejects(), export, limit).await?;
        Ok((client, found))
    };
    // The limit is for one answer, not for all the rejects.
    let doing = "reading the rejects";
    let found = connection.ask_within(Duration::MAX, doing, go).await?;
    Ok((import.target, found))
}

/// As [`rejects`], on a connection: where to export to comes with how that file is written.
pub async fn go_through(
    client: &Client,
    rejects: &OpenRejects<'_>,
    export: Option<(&Path, &RejectLayout)>,
    limit: Duration,
) -> Result<Rejects, Error> {
    let failed = |source| Error::Output {
        name: export.map_or(String::new(), |(path, _)| path.display().to_string()),
        source,
    };
    let file = export.map(|(path, layout)| RejectFile::create(path, layout.clone()));
    let mut file = file.transpose().map_err(failed)?;
    let reasons = Reasons::default();
    let mut count = 0;
    let look = |original: &[u8], reason: &Reason<'_>| {
        count += 1;
        reasons.count(reason.sqlstate, reason.column, reason.message, || {
            let position = Position {
                byte: reason.start_byte,
                record: reason.record,
                line: reason.line,
            };
            format!("{}, {position}", reason.source)
        });
        match &mut file {
            Some(file) => file.push(original, reason).map_err(failed),
            None => Ok(()),
        }
    };
    rejects.each(client, limit, look).await?;
    if let Some(file) = &mut file {
        file.flush().map_err(failed)?;
    }
    Ok(Rejects {
        count,
        reasons: reasons.all(),
    })
}
