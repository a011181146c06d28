//! Where the rows of a load come from, and what of them the ledger knows.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use super::connection::ControlConnection;
use super::control::Control;
use super::identities::identities;
use super::readers::First;
use crate::error::Error;
use crate::job::{LedgerUse, LoadSettings};
use crate::ledger::{self, Lease, Ledger};
use crate::merge::{Merge, Mode};
use crate::reject_file::RejectLayout;
use crate::report::{Console, Filled, LeftOut, Rehearsal};
use crate::source::{Input, Reading, Records};
use crate::span::Known;
use crate::target::{Column, Mapping, Table, Target};

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
    /// How fields become columns, where they do not as they are.
    pub mapping: Option<Mapping>,
    /// Stored bytes taken from the sources.
    pub taken: Arc<AtomicU64>,
}

/// What is written.
#[derive(Clone, Copy)]
pub struct Written<'a> {
    pub table: &'a Table,
    pub target: &'a Arc<Target>,
    /// How each batch is merged, if that is so.
    pub merge: Option<&'a Merge>,
}

impl Origin {
    /// Whether nothing is left to read.
    pub fn is_whole(&self) -> bool {
        self.whole.iter().all(|whole| *whole)
    }

    /// Tells the first source how many fields a record has, whose rows land in `target`.
    pub fn expect_fields(&mut self, target: &Arc<Target>) {
        let written = self.onto(target).inputs().len();
        self.first.expect_fields(self.reading.field_count(written));
    }

    /// What the strategies write, so that it lands in `target`.
    pub fn onto(&self, target: &Arc<Target>) -> Arc<Target> {
        let Some(mapping) = &self.mapping else {
            return target.clone();
        };
        let names: Vec<Arc<str>> = self.inputs.iter().map(Input::name).collect();
        Arc::new(mapping.onto(target.clone(), &names))
    }

    /// What a check tells of the columns of `target`, which are some of `table`.
    pub fn rehearsal(&self, target: &Target, table: &Table) -> Rehearsal {
        let filled = target.inputs().iter().enumerate().map(|(index, column)| {
            let is_its = |name: &&String| {
                let picked = table.pick(std::slice::from_ref(*name));
                picked.is_ok_and(|picked| picked[0].name == column.name)
            };
            let header = self.header.iter().flatten().find(is_its);
            let from = match (&self.mapping, header) {
                (Some(mapping), _) => mapping.origin(index).to_string(),
                (None, Some(name)) => name.clone(),
                (None, None) if self.reading.has_header() => column.name.clone(),
                (None, None) if matches!(self.reading, Reading::Ndjson { .. }) => {
                    column.name.clone()
                }
                (None, None) => format!("field {}", index + 1),
            };
            Filled {
                column: column.name.clone(),
                ty: column.modified_type_name.clone(),
                from,
                example: None,
            }
        });
        let is_filled = |column: &&Column| target.inputs().iter().any(|it| it.name == column.name);
        let left_out = table.columns.iter().filter(|column| !is_filled(column));
        let left_out = left_out.map(|column| LeftOut {
            column: column.name.clone(),
            gets: match column {
                Column {
                    generated: true, ..
                } => "generated",
                Column {
                    has_default: true, ..
                } => "its default",
                _ => "NULL",
            },
        });
        Rehearsal {
            columns: filled.collect(),
            left_out: left_out.collect(),
            ..Rehearsal::default()
        }
    }

    /// Whether what is committed is a beginning of the input: later rows would else be overtaken by
    /// earlier ones.
    pub fn is_begun_in_order(&self) -> bool {
        let Some(last) = self.known.iter().rposition(|known| !known.is_empty()) else {
            return true;
        };
        let read = (0..last).map(|index| {
            let end = self.known[index].iter().map(|span| span.end).max();
            let size = self.inputs[index].size().ok().flatten();
            self.whole[index] || end.is_some() && end == size
        });
        read.into_iter().all(|read| read)
    }

    /// Opens the import in the ledger, if one is used: what is known of the sources, and which of
    /// them are the same.
    pub(super) async fn open_import(
        &mut self,
        settings: &LoadSettings,
        connection: &mut ControlConnection,
        written: Written<'_>,
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
        let Written {
            table,
            target,
            merge,
        } = written;
        let target = self.onto(target);
        self.reopen(settings, &target).await?;
        let merging = merge.map(|merge| {
            let key = merge.key.iter().flat_map(|key| &key.columns);
            let key: Vec<&str> = key.map(|column| column.name.as_str()).collect();
            let newer = merge.newer.as_ref().map(|newer| &newer.column);
            json!({ "mode": merge.mode, "key": key, "newer": newer })
        });
        let request = ledger::Request {
            merging: merging.as_ref(),
            import_id: import_id.clone(),
            job: lease.map(Lease::job),
            restart: *restart,
            table,
            target: &target,
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

    /// Opens the first of the inputs, unless it is the source that is open: that one may have the content
    /// of a later input, and then be left out.
    async fn reopen(&mut self, settings: &LoadSettings, target: &Target) -> Result<(), Error> {
        let input = match self.inputs.first() {
            Some(input) if input.name() != *self.first.name() => input.clone(),
            _ => return Ok(()),
        };
        let (options, taken) = (settings.read.clone(), self.taken.clone());
        let like = self.like_first(target);
        self.first = blocking(move || {
            let mut first = Records::open(&input, &options, taken)?;
            like.check(&mut first)?;
            Ok(first)
        })
        .await?;
        Ok(())
    }

    /// What every other source must agree with; `target` is what the strategies write.
    pub(super) fn like_first(&self, target: &Target) -> First {
        First {
            name: self.first.name().clone(),
            format: self.first.format(),
            header: self.header.clone(),
            field_count: self.reading.field_count(target.inputs().len()),
        }
    }

    /// How a file of rejects is written: as the first source.
    pub fn reject_layout(&self) -> RejectLayout {
        self.reading
            .reject_layout(self.header.as_deref().unwrap_or_default())
    }
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
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::panic("reading"))?
}
