//! All that can fail, settled before the first row moves: settings, leftovers, sources, table,
//! columns, rights, import, files, the metrics port.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio_postgres::Client;

use super::close::alone;
use super::columns::{Named, check_copy_format};
use super::connection::ControlConnection;
use super::control::Control;
use super::identities::identities;
use super::lease::Held;
use super::leftovers::load_leftovers;
use super::proof::Before;
use super::rights::check_rights;
use super::sessions;
use super::staging::Staged;
use super::workers::Destination;
use crate::error::Error;
use crate::job::{Durability, LedgerUse, LoadSettings};
use crate::ledger::{self, Lease, Ledger};
use crate::merge::Mode;
use crate::metrics::{self, Listener};
use crate::queue::{Identity, Spill, SpilledSource};
use crate::reject_file::{RejectFile, RejectLayout};
use crate::report::Console;
use crate::source::{Input, Reading, Records};
use crate::span::Known;
use crate::target::{Table, Target};

/// A load that is ready to run.
pub struct Prepared {
    /// Where rows come from.
    pub origin: Origin,
    pub destination: Destination,
    /// How staged rows go on from there; `None`: they are in their table.
    pub staged: Option<Staged>,
    /// The table as it is now; `None` where nothing is sent to it.
    pub before: Option<Before>,
    /// Stored bytes of all sources, where known.
    pub total: Option<u64>,
    /// Indexes of the table.
    pub indexes: i64,
    /// Whether commits are answered before they are durable, and made so at the end.
    pub durable_at_end: bool,
    /// Where batches wait on disk.
    pub spill: Option<Spill>,
    /// Where the figures are served.
    pub listener: Option<Listener>,
    /// Rejects among the batches that an earlier run had left on disk.
    pub leftover_rejects: u64,
}

/// The sources of a load that is ready to run.
pub struct Origin {
    /// The first source, opened, its header taken.
    pub first: Records,
    /// The names in its header.
    pub header: Option<Vec<String>>,
    /// How records are read.
    pub reading: Reading,
    /// All sources; files of the same content only once.
    pub inputs: Vec<Input>,
    /// What is committed already, source by source.
    pub known: Vec<Known>,
    /// Whether nothing is left to read, source by source.
    pub whole: Vec<bool>,
    /// Stored bytes taken from the sources.
    pub taken: Arc<AtomicU64>,
}

/// Settles everything.
///
/// # Errors
/// Whatever would make the load fail anyway, before anything is written.
pub async fn prepare(
    settings: &LoadSettings,
    connection: &mut ControlConnection,
    control: &Control,
    held: &mut Option<Held>,
) -> Result<Prepared, Error> {
    settings.check()?;
    let leftover_rejects = load_leftovers(settings, connection, control).await?;
    let taken = Arc::<AtomicU64>::default();
    let (mut first, named) = open_first(settings, taken.clone()).await?;
    let all = vec![false; settings.inputs.len()];
    stored_bytes(&first, &settings.inputs, &all)?;

    let find = |client: Client| async {
        let table = Table::find(&client, &settings.table).await?;
        Ok((client, table))
    };
    let table = connection.ask("reading the catalog", find).await?;
    let columns = named.columns(&first, &table, settings)?;
    let target = Arc::new(Target::new(table.quoted(), columns));
    if !settings.is_staged() {
        check_target(settings, connection, &target).await?;
    }
    if let Some(doubt) = named.doubt(&first, settings) {
        control.console.notice(&doubt);
    }
    let look = |client: Client| async {
        let durable_at_end = match settings.durability {
            Some(durability) => durability == Durability::End,
            None => is_asynchronous(&client).await?,
        };
        let indexes = table.indexes(&client).await;
        let before = match settings.strategy_factory().sends_nothing() {
            true => None,
            false => Some(Before::note(&client, &table).await?),
        };
        Ok((client, (indexes, durable_at_end, before)))
    };
    let (indexes, durable_at_end, mut before) = connection
        .ask("reading the server's settings", look)
        .await?;
    control.console.detail(&describe(&first, &target));

    if settings.ledger == LedgerUse::Off && !settings.strategy_factory().sends_nothing() {
        alone(connection, "--before", &settings.before).await?;
    }
    first.expect_columns(target.columns.len());
    let mut origin = Origin {
        reading: first.reading(named.header.is_some()),
        first,
        header: named.header,
        inputs: settings.inputs.clone(),
        known: vec![Known::new(); settings.inputs.len()],
        whole: all,
        taken,
    };
    let job = settings.job.clone();
    let job = job.or_else(|| {
        settings
            .is_staged()
            .then(|| format!("table {}", table.quoted()))
    });
    if let Some(job) = &job {
        *held = Some(Held::take(job, settings, connection, control).await?);
    }
    let (mut table, mut target, mut staged) = (table, target, None);
    let ledger = match held {
        Some(Held { lease, .. }) if settings.is_staged() => {
            let mut it = Staged::prepare(settings, connection, &table, &target).await?;
            let opened = it.open(lease, &mut origin, settings, connection, control);
            let (staging, staging_target, ledger) = opened.await?;
            let note = |client: Client| async {
                let before = Before::note(&client, &staging).await?;
                Ok((client, before))
            };
            before = Some(
                connection
                    .ask("reading the server's settings", note)
                    .await?,
            );
            (table, target, staged) = (staging, staging_target, Some(it));
            Some(ledger)
        }
        _ => {
            let lease = held.as_ref().map(|held| &held.lease);
            origin
                .open_import(settings, connection, &table, &target, lease, control)
                .await?
        }
    };
    let total = stored_bytes(&origin.first, &origin.inputs, &origin.whole)?;
    let reject_file = reject_file(settings, &ledger, &origin)?;
    let destination = Destination {
        pool: sessions::pool(connection, settings).await?,
        fresh: origin.known.iter().all(Known::is_empty),
        names: origin.inputs.iter().map(Input::name).collect(),
        table,
        target,
        ledger,
        reject_file,
    };
    Ok(Prepared {
        spill: create_spill(settings, &origin, &destination)?,
        listener: listen(settings).await?,
        origin,
        destination,
        staged,
        before,
        total,
        indexes,
        durable_at_end,
        leftover_rejects,
    })
}

async fn listen(settings: &LoadSettings) -> Result<Option<Listener>, Error> {
    Ok(match settings.metrics {
        Some(address) => Some(metrics::listen(address).await?),
        None => None,
    })
}

/// Checks that the target can be written, before any row is.
async fn check_target(
    settings: &LoadSettings,
    connection: &mut ControlConnection,
    target: &Target,
) -> Result<(), Error> {
    check_copy_format(target, settings.copy_format)?;
    let check = |client: Client| async {
        check_rights(&client, target, settings.strategy).await?;
        Ok((client, ()))
    };
    let doing = "checking that the table can be written";
    connection.ask(doing, check).await
}

/// Whether the server answers to a commit before it is durable, left to itself: exit code 0
/// promises more.
async fn is_asynchronous(client: &Client) -> Result<bool, Error> {
    let sql = "SELECT current_setting('synchronous_commit') = 'off' AS asynchronous";
    let row = client.query_typed_one(sql, &[]).await;
    let row = row.map_err(Error::server("reading the server's settings"))?;
    Ok(row.get("asynchronous"))
}

/// Opens the first source and takes what it says of its columns.
async fn open_first(
    settings: &LoadSettings,
    taken: Arc<AtomicU64>,
) -> Result<(Records, Named), Error> {
    let settings = settings.clone();
    blocking(move || {
        let mut first = Records::open(&settings.inputs[0], &settings.read, taken)?;
        let named = Named::take(&mut first, &settings)?;
        Ok((first, named))
    })
    .await
}

impl Origin {
    /// Whether nothing is left to read.
    pub fn is_whole(&self) -> bool {
        self.whole.iter().all(|whole| *whole)
    }

    /// Opens the import in the ledger, if one is used: what is known of the sources, and which of
    /// them are the same.
    pub(super) async fn open_import(
        &mut self,
        settings: &LoadSettings,
        connection: &mut ControlConnection,
        table: &Table,
        target: &Target,
        lease: Option<&Lease>,
        control: &Control,
    ) -> Result<Option<Ledger>, Error> {
        let LedgerUse::On { import_id, restart } = &settings.ledger else {
            return Ok(None);
        };
        if settings.strategy_factory().sends_nothing() {
            return Ok(None);
        }
        let (inputs, options) = (self.inputs.clone(), settings.read.clone());
        let console = control.console.clone();
        // Which of two equal files is left out must not change which record of a key wins.
        let last_counts =
            settings.newer.is_none() && !matches!(settings.mode, Mode::Append | Mode::Ignore);
        let sources =
            blocking(move || identities(&inputs, &options, last_counts, &console)).await?;
        self.inputs = sources.iter().map(|source| source.input.clone()).collect();
        let server = connection.server().clone();
        connection.require_ledger().await?;
        let patience = settings.retries.answer_timeout;
        let request = ledger::Request {
            import_id: import_id.clone(),
            job: lease.map(Lease::job),
            restart: *restart,
            table,
            target,
            reading: &self.reading,
            header: self.header.as_deref(),
            options: &settings.read,
            sources: &sources,
            // Staged rows come in later.
            before: if settings.is_staged() {
                &[]
            } else {
                &settings.before
            },
            settings: &server,
            notify: &|text| control.console.notice(text),
            patience,
        };
        let open = |mut client: Client| async {
            let opened = ledger::open(&mut client, &request).await?;
            Ok((client, opened))
        };
        // Files may take long to compare; what it waits for the server for has its own limit.
        let doing = "opening the import in the ledger";
        let opened = connection.ask_within(Duration::MAX, doing, open).await?;
        self.known = opened.known;
        // The limit counts what is passed over.
        self.whole = match settings.read.limit {
            Some(_) => vec![false; opened.whole.len()],
            None => opened.whole,
        };
        announce(&opened.ledger, self, &control.console);
        Ok(Some(opened.ledger))
    }
}

/// Without a ledger, bad rows go straight to a file, if one is named.
fn reject_file(
    settings: &LoadSettings,
    ledger: &Option<Ledger>,
    origin: &Origin,
) -> Result<Option<RejectFile>, Error> {
    let Some(path) = settings.rejects.as_ref().filter(|_| ledger.is_none()) else {
        return Ok(None);
    };
    match RejectFile::create(path, origin.reject_layout()) {
        Ok(file) => Ok(Some(file)),
        Err(source) => Err(Error::Output {
            name: path.display().to_string(),
            source,
        }),
    }
}

impl Origin {
    /// How a file of rejects is written: as the first source.
    pub fn reject_layout(&self) -> RejectLayout {
        self.reading
            .reject_layout(self.header.as_deref().unwrap_or_default())
    }
}

/// The files of `--overflow spill`, if that is wanted.
fn create_spill(
    settings: &LoadSettings,
    origin: &Origin,
    destination: &Destination,
) -> Result<Option<Spill>, Error> {
    let (Some(dir), Some(ledger)) = (settings.spills_to(), &destination.ledger) else {
        return Ok(None);
    };
    let sources = origin.inputs.iter().zip(&ledger.sources);
    let identity = Identity {
        import_id: ledger.import_id.clone(),
        table: destination.target.table.clone(),
        sources: sources
            .map(|(input, source)| SpilledSource {
                name: input.name().to_string(),
                import_id: source.import_id.clone(),
                number: source.number,
            })
            .collect(),
        reading: origin.reading.clone(),
    };
    // Where commits need not wait for the disk, neither need batches.
    let sync = !matches!(settings.durability, Some(Durability::Off | Durability::End));
    let spill = Spill::create(dir, settings.spill_limit as u64, identity)?;
    Ok(Some(spill.sync_segments(sync)))
}

/// Stored bytes of all sources that are not passed over as a whole, where all are files; finds
/// missing files before anything is written.
fn stored_bytes(first: &Records, inputs: &[Input], whole: &[bool]) -> Result<Option<u64>, Error> {
    let mut total = Some(0);
    for (index, input) in inputs
        .iter()
        .enumerate()
        .filter(|(index, _)| !whole[*index])
    {
        let size = match index {
            0 => first.size(),
            _ => input.size()?,
        };
        total = total.zip(size).map(|(total, size)| total + size);
    }
    Ok(total)
}

fn describe(first: &Records, target: &Target) -> String {
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
fn announce(ledger: &Ledger, origin: &Origin, console: &Console) {
    let committed: u64 = origin.known.iter().flatten().map(|span| span.records).sum();
    let import_id = &ledger.import_id;
    if origin.is_whole() {
        console.notice(&format!(
            "import {import_id}: the input was compared in full and is loaded already: nothing is left to load; --restart loads a single input again"
        ));
    } else if committed > 0 && ledger.is_one() {
        console.notice(&format!(
            "import {import_id} goes on: {committed} records are committed already"
        ));
    } else if committed > 0 {
        console.notice(&format!(
            "import {import_id}: {committed} records of the input are committed already, some of them by other imports"
        ));
    } else {
        console.detail(&format!("import {import_id}"));
    }
}

/// Runs what may wait for a disk or a pipe beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::panic("reading"))?
}
