//! All that can fail, settled before the first row moves: settings, leftovers, sources, table,
//! columns, rights, import, files, the metrics port.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio_postgres::Client;

use super::close::alone;
use super::columns::{Named, check_copy_format};
use super::connection::ControlConnection;
use super::control::Control;
use super::lease::Held;
use super::leftovers::load_leftovers;
use super::origin::{Origin, Written, blocking};
use super::proof::Before;
use super::rights::check_rights;
use super::sessions;
use super::staging::Staged;
use super::workers::Destination;
use crate::error::Error;
use crate::job::{Durability, LedgerUse, LoadSettings};
use crate::ledger::{Lease, Ledger};
use crate::merge::Merge;
use crate::metrics::{self, Listener};
use crate::queue::{Identity, Spill, SpilledSource};
use crate::reject_file::RejectFile;
use crate::report::Rehearsal;
use crate::source::{Input, Records};
use crate::span::Known;
use crate::strategy::StrategyKind;
use crate::target::{Mapping, Table, Target};

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
    /// What a check tells of the columns.
    pub rehearsal: Option<Rehearsal>,
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
    let (first, named) = open_first(settings, taken.clone()).await?;
    let all = vec![false; settings.inputs.len()];
    stored_bytes(&first, &settings.inputs, &all)?;

    let table = find(settings, connection).await?;
    let (columns, mapping, rules) = named.columns(&first, &table, settings)?;
    let target = Arc::new(Target::new(table.quoted(), columns));
    let mapping = check_mapping(mapping, connection, &target).await?;
    if !settings.is_staged() {
        check_target(settings, connection, &target, mapping.is_some()).await?;
    }
    if let Some(doubt) = named.doubt(&first, settings) {
        control.console.notice(&doubt);
    }
    let Looked {
        indexes,
        durable_at_end,
        mut before,
    } = look(settings, connection, &table).await?;
    control.console.detail(&describe(&first, &target));

    if settings.ledger == LedgerUse::Off && !settings.strategy_factory().sends_nothing() {
        alone(connection, "--before", &settings.before).await?;
    }
    let mut origin = Origin {
        reading: first.reading(named.header.is_some(), rules),
        first,
        header: named.header,
        inputs: settings.inputs.clone(),
        known: vec![Known::new(); settings.inputs.len()],
        whole: all,
        mapping,
        taken,
    };
    origin.expect_fields(&target);
    let of_table = table.clone();
    let written = (table, target);
    let opened = open(settings, connection, control, &mut origin, written, held).await?;
    if let Some((_, staged_before)) = &opened.staged {
        before = Some(staged_before.clone());
    }
    let rehearsal = opened.staged.as_ref().filter(|_| settings.rehearses);
    let rehearsal = rehearsal.map(|(staged, _)| origin.rehearsal(&staged.merge.target, &of_table));
    let total = stored_bytes(&origin.first, &origin.inputs, &origin.whole)?;
    let destination = Destination {
        pool: sessions::pool(connection, settings).await?,
        fresh: origin.known.iter().all(Known::is_empty),
        names: origin.inputs.iter().map(Input::name).collect(),
        table: opened.table,
        merge: opened.merge,
        lease: fencing(held, opened.staged.is_some()),
        target: origin.onto(&opened.target),
        reject_file: reject_file(settings, &opened.ledger, &origin)?,
        ledger: opened.ledger,
    };
    Ok(Prepared {
        spill: create_spill(settings, &origin, &destination)?,
        listener: listen(settings).await?,
        origin,
        destination,
        staged: opened.staged.map(|(staged, _)| staged),
        before,
        total,
        indexes,
        durable_at_end,
        leftover_rejects,
        rehearsal,
    })
}

async fn find(settings: &LoadSettings, connection: &mut ControlConnection) -> Result<Table, Error> {
    let find = |client: Client| async {
        let table = Table::find(&client, &settings.table).await?;
        Ok((client, table))
    };
    connection.ask("reading the catalog", find).await
}

/// The lease that must be ours at each commit, where rows are not staged.
fn fencing(held: &Option<Held>, are_staged: bool) -> Option<Lease> {
    let held = held.as_ref().filter(|_| !are_staged);
    held.map(|held| held.lease.clone())
}

/// What is written, and where that is noted.
struct Opened {
    table: Table,
    target: Arc<Target>,
    ledger: Option<Ledger>,
    /// How each batch is merged.
    merge: Option<Arc<Merge>>,
    /// How staged rows go on, and their table as it is now.
    staged: Option<(Staged, Before)>,
}

/// Takes the lease of the job, if there is one, and opens the import: in the table itself, or in one
/// where its rows are staged.
async fn open(
    settings: &LoadSettings,
    connection: &mut ControlConnection,
    control: &Control,
    origin: &mut Origin,
    (table, target): (Table, Arc<Target>),
    held: &mut Option<Held>,
) -> Result<Opened, Error> {
    if settings.rehearses {
        let job = format!("check of table {}", table.quoted());
        *held = Some(Held::take(&job, settings, connection, control).await?);
    }
    let of_table = || {
        let merges = settings.merges_batches() && settings.ledger != LedgerUse::Off;
        (settings.is_staged() || merges).then(|| format!("table {}", table.quoted()))
    };
    let job = || settings.job.clone().or_else(of_table);
    if let (None, Some(job)) = (&held, job()) {
        *held = Some(Held::take(&job, settings, connection, control).await?);
    }
    let lease = held.as_ref().map(|held| &held.lease);
    if settings.merges_batches() {
        let staged = Staged::prepare(settings, connection, &table, &target).await?;
        let opened = staged.open_batches(lease, origin, settings, connection, control, &table);
        let (target, merge, ledger) = opened.await?;
        return Ok(Opened {
            table,
            target,
            ledger,
            merge: merge.map(Arc::new),
            staged: None,
        });
    }
    let Some(lease) = lease.filter(|_| settings.is_staged()) else {
        let written = Written {
            table: &table,
            target: &target,
            merge: None,
        };
        let opened = origin.open_import(settings, connection, written, lease, control);
        return Ok(Opened {
            ledger: opened.await?,
            table,
            target,
            merge: None,
            staged: None,
        });
    };
    let mut staged = Staged::prepare(settings, connection, &table, &target).await?;
    let opened = staged.open(lease, origin, settings, connection, control);
    let (table, target, ledger) = opened.await?;
    let note = |client: Client| async {
        let before = Before::note(&client, &table).await?;
        Ok((client, before))
    };
    let before = connection
        .ask("reading the server's settings", note)
        .await?;
    Ok(Opened {
        table,
        target,
        ledger: Some(ledger),
        merge: None,
        staged: Some((staged, before)),
    })
}

/// The table and the server as they are.
struct Looked {
    indexes: i64,
    durable_at_end: bool,
    before: Option<Before>,
}

async fn look(
    settings: &LoadSettings,
    connection: &mut ControlConnection,
    table: &Table,
) -> Result<Looked, Error> {
    let look = |client: Client| async {
        let looked = Looked {
            durable_at_end: match settings.durability {
                Some(durability) => durability == Durability::End,
                None => is_asynchronous(&client).await?,
            },
            indexes: table.indexes(&client).await,
            before: match settings.strategy_factory().sends_nothing() {
                true => None,
                false => Some(Before::note(&client, table).await?),
            },
        };
        Ok((client, looked))
    };
    connection.ask("reading the server's settings", look).await
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
    is_mapped: bool,
) -> Result<(), Error> {
    // Mapped rows come as text, and like those of a batch that is merged into the table by INSERT.
    let strategy = match settings.strategy {
        StrategyKind::Copy if is_mapped || settings.merges_batches() => StrategyKind::Insert,
        strategy => strategy,
    };
    if !is_mapped {
        check_copy_format(target, settings.copy_format)?;
    }
    let check = |client: Client| async {
        check_rights(&client, target, strategy).await?;
        Ok((client, ()))
    };
    let doing = "checking that the table can be written";
    connection.ask(doing, check).await
}

/// Lets the server look at the expressions of `--map`.
async fn check_mapping(
    mapping: Option<Mapping>,
    connection: &mut ControlConnection,
    target: &Arc<Target>,
) -> Result<Option<Mapping>, Error> {
    let Some(mapping) = mapping else {
        return Ok(None);
    };
    let check = |client: Client| async {
        let checked = mapping.clone().check(&client, target).await?;
        Ok((client, checked))
    };
    let checked = connection.ask("checking the expressions of --map", check);
    checked.await.map(Some)
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
