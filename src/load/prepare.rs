//! All that is settled before the first row moves: sources, table, columns, rights, import.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio_postgres::Client;

use super::plan::{LedgerUse, LoadPlan};
use super::sampler::indexes;
use crate::connect;
use crate::error::Error;
use crate::ledger::{self, Known, Ledger, SourceIdentity};
use crate::report::Console;
use crate::source::{Fingerprint, Format, Input, InputError, Reader};
use crate::strategy::{CopyFormat, StrategyKind};
use crate::table::{Column, Table, Target};

/// A load that is ready to run.
pub struct Ready {
    /// The first source, opened, its header taken.
    pub first: Reader,
    /// The names in its header.
    pub header: Option<Vec<String>>,
    /// All sources; files of the same content only once.
    pub inputs: Vec<Input>,
    /// What is committed already, source by source.
    pub known: Vec<Known>,
    /// Whether nothing is left to read.
    pub finished: bool,
    /// Stored bytes taken from the sources.
    pub taken: Arc<AtomicU64>,
    /// Stored bytes of all sources, where known.
    pub total: Option<u64>,
    /// The table.
    pub table: Table,
    /// What is written of it.
    pub target: Arc<Target>,
    /// Connections for the workers.
    pub connections: connect::Pool,
    /// Where commits are noted.
    pub ledger: Option<Ledger>,
    /// Indexes of the table.
    pub indexes: i64,
}

/// Settles everything.
///
/// # Errors
/// Whatever would make the load fail anyway, before anything is written.
pub async fn prepare(plan: &LoadPlan, console: &Console) -> Result<Ready, Error> {
    let taken = Arc::new(AtomicU64::new(0));
    let input = plan.inputs.first().cloned().unwrap_or(Input::Stdin);
    let (options, counter) = (plan.read.clone(), taken.clone());
    let (first, header) = blocking(move || {
        let mut first = Reader::open(0, &input, &options, counter)?;
        let header = match first.format() {
            Format::Ndjson => None,
            _ if options.header => Some(first.take_header()?),
            _ => None,
        };
        Ok((first, header))
    })
    .await?;
    let total = stored_bytes(&first, &plan.inputs)?;

    let connections = connect::pool(&plan.settings, plan.workers)?;
    let client = connections
        .get()
        .await
        .map_err(|error| Error::Connect(error.into()))?;
    let table = Table::find(&client, &plan.table).await?;
    let (first, columns) = columns(plan, first, header.as_deref(), &table).await?;
    let target = Arc::new(Target {
        table: table.quoted(),
        columns,
    });
    if plan.copy_format == CopyFormat::Binary
        && let Some(column) = target
            .columns
            .iter()
            .find(|column| column.encoder().is_none())
    {
        return Err(Error::Usage(format!(
            "--copy-format binary: column \"{}\" is of type {}, which has no binary encoder; use auto or text",
            column.name, column.base_type_name
        )));
    }
    check_rights(&client, &target, plan.strategy).await?;
    let indexes = indexes(&client, table.oid).await;
    drop(client);
    console.detail(&describe(&first, &target));

    let mut ready = Ready {
        known: vec![Vec::new(); plan.inputs.len()],
        inputs: plan.inputs.clone(),
        finished: false,
        ledger: None,
        first,
        header,
        taken,
        total,
        table,
        target,
        connections,
        indexes,
    };
    if let LedgerUse::On { import_id, restart } = &plan.ledger
        && plan.strategy != StrategyKind::Discard
    {
        ready
            .open_import(plan, import_id.clone(), *restart, console)
            .await?;
    }
    Ok(ready)
}

impl Ready {
    async fn open_import(
        &mut self,
        plan: &LoadPlan,
        import_id: Option<String>,
        restart: bool,
        console: &Console,
    ) -> Result<(), Error> {
        let mut client = connect::connect(&plan.settings).await?;
        ledger::require(&mut client).await?;
        let mut sources = identities(&self.inputs).await?;
        drop_twins(&mut self.inputs, &mut sources, console);
        let request = ledger::Request {
            import_id,
            restart,
            table: &self.table,
            target: &self.target,
            reading: self.first.reading(self.header.is_some()),
            sources: &sources,
            settings: &plan.settings,
            console,
        };
        let opened = ledger::open(&mut client, &request).await?;
        self.known = opened.known;
        self.finished = opened.finished;
        announce(&opened.ledger, &self.known, self.finished, console);
        self.ledger = Some(opened.ledger);
        Ok(())
    }
}

/// The columns that the fields of a record go to.
async fn columns(
    plan: &LoadPlan,
    mut first: Reader,
    header: Option<&[String]>,
    table: &Table,
) -> Result<(Reader, Vec<Column>), Error> {
    let names = match (&plan.read.columns, header) {
        (Some(names), Some(header)) if names.len() != header.len() => {
            return Err(Error::Usage(format!(
                "--columns names {} columns, but the header of {} has {}",
                names.len(),
                first.name(),
                header.len(),
            )));
        }
        (Some(names), _) => names.clone(),
        (None, Some(header)) => header.to_vec(),
        (None, None) if first.format() == Format::Ndjson => {
            let (reader, seen) = blocking(move || {
                let seen = first.sample_keys();
                seen.map(|seen| (first, seen))
            })
            .await?;
            first = reader;
            json_columns(table, &seen)?
        }
        (None, None) => table.writable().map(|column| column.name.clone()).collect(),
    };
    let columns = table.pick(&names)?;
    Ok((first, columns))
}

/// For JSON lines without `--columns`: all columns, but of those with a default only the ones
/// whose keys were seen. A record with an unknown key is a bad record; a source without any known
/// key is a wrong source.
fn json_columns(table: &Table, seen: &[String]) -> Result<Vec<String>, Error> {
    let known: Vec<Column> = seen
        .iter()
        .filter_map(|name| table.pick(std::slice::from_ref(name)).ok()?.pop())
        .collect();
    if known.is_empty() && !seen.is_empty() {
        table.pick(seen)?;
    }
    Ok(table
        .writable()
        .filter(|column| !column.has_default || known.contains(column))
        .map(|column| column.name.clone())
        .collect())
}

/// Stored bytes of all sources, where all are files; finds missing files before anything is
/// written.
fn stored_bytes(first: &Reader, inputs: &[Input]) -> Result<Option<u64>, Error> {
    let mut total = first.size();
    for input in inputs.iter().skip(1) {
        let size = Reader::size_of(input)?;
        total = total.zip(size).map(|(total, size)| total + size);
    }
    Ok(total)
}

/// A write of no rows in a transaction rolled back: finds missing rights, a read-only server and
/// tables that the strategy cannot write, before the first row.
async fn check_rights(
    client: &Client,
    target: &Target,
    strategy: StrategyKind,
) -> Result<(), Error> {
    let refused = |error| Error::Server {
        doing: "checking that the table can be written",
        error,
    };
    // Not to wait in silence for somebody who locks the table.
    client
        .batch_execute("BEGIN; SET LOCAL lock_timeout = '30s'")
        .await
        .map_err(refused)?;
    let result = match strategy {
        StrategyKind::Discard => Ok(()),
        StrategyKind::Copy => copy_nothing(client, target).await,
        _ => {
            let nulls = vec!["NULL"; target.columns.len()].join(", ");
            let sql = format!("{} SELECT {nulls} WHERE false", target.insert_into());
            client.batch_execute(&sql).await
        }
    };
    if result.is_ok() {
        client.batch_execute("ROLLBACK").await.map_err(refused)?;
    }
    result.map_err(refused)
}

async fn copy_nothing(client: &Client, target: &Target) -> Result<(), tokio_postgres::Error> {
    let sink = client
        .copy_in::<_, bytes::Bytes>(&target.copy_from())
        .await?;
    std::pin::pin!(sink).finish().await.map(|_| ())
}

/// The sources as the ledger knows them.
async fn identities(inputs: &[Input]) -> Result<Vec<SourceIdentity>, Error> {
    let inputs = inputs.to_vec();
    blocking(move || inputs.iter().map(identity).collect()).await
}

fn identity(input: &Input) -> Result<SourceIdentity, InputError> {
    let Input::File(path) = input else {
        return Ok(SourceIdentity {
            name: input.name().to_string(),
            fingerprint: None,
            path: None,
        });
    };
    let fingerprint = Fingerprint::of(path).map_err(|source| InputError::Read {
        name: input.name(),
        error: source,
    })?;
    let absolute = path.canonicalize().unwrap_or_else(|_| path.clone());
    Ok(SourceIdentity {
        name: absolute.display().to_string(),
        fingerprint,
        path: Some(path.clone()),
    })
}

/// A file given twice, under whatever name, is one source: it is loaded once.
fn drop_twins(inputs: &mut Vec<Input>, sources: &mut Vec<SourceIdentity>, console: &Console) {
    let mut index = 0;
    while index < sources.len() {
        let source = &sources[index];
        let twin = sources[..index]
            .iter()
            .find(|other| source.fingerprint.is_some() && other.fingerprint == source.fingerprint);
        if let Some(twin) = twin {
            console.notice(&format!(
                "{} has the same content as {}: loaded once",
                source.name, twin.name
            ));
            sources.remove(index);
            inputs.remove(index);
        } else {
            index += 1;
        }
    }
}

fn describe(first: &Reader, target: &Target) -> String {
    let packed = match first.compression().name() {
        "none" => String::new(),
        packed => format!(" in {packed}"),
    };
    format!(
        "{}: {}{packed}, columns {}",
        first.name(),
        first.format().name(),
        target.column_list()
    )
}

/// Says which import this is and what is left of it.
fn announce(ledger: &Ledger, known: &[Known], finished: bool, console: &Console) {
    let committed: u64 = known.iter().flatten().map(|span| span.records).sum();
    let import_id = &ledger.import_id;
    if finished {
        console.notice(&format!(
            "import {import_id} was finished by an earlier run: nothing is left to load; --restart loads it again"
        ));
    } else if committed > 0 {
        console.notice(&format!(
            "import {import_id} goes on: {committed} records are committed already"
        ));
    } else {
        console.detail(&format!("import {import_id}, run {}", ledger.epoch));
    }
}

/// Runs what may wait for a disk or a pipe beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InputError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(Error::Mismatch(format!("reading failed: {panic}"))),
    }
}
