//! A load whose rows are merged: what it needs to know of the table, and its staging table or that of
//! a batch.

use std::sync::Arc;

use serde_json::json;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::connection::ControlConnection;
use super::control::Control;
use super::origin::{Origin, Written};
use crate::error::Error;
use crate::job::{LedgerUse, LoadSettings, SettingsError};
use crate::ledger::{self, Lease, Ledger, LedgerError, StagingRequest};
use crate::merge::{Merge, Mode, Newer, Superseded};
use crate::source::Input;
use crate::strategy::StrategyKind;
use crate::target::{self, Column, Key, KeyError, Place, Staging, Stamp, Table, Target};

/// A load whose rows are staged.
pub struct Staged {
    pub merge: Merge,
    /// Where its rows go in the end.
    pub place: Place,
    /// Its name, unquoted and without its schema.
    name: String,
    staging: Staging,
}

/// What bears on a merge into the table: who points to it, whether deletes of it are published that
/// have no identity, whether rows exclude each other but by the key, which triggers may keep rows from being written,
/// which rules and policies are in the way, and whether MERGE takes the table.
const FACTS: &str = "
WITH RECURSIVE tree AS (SELECT $1::oid AS oid UNION SELECT relid FROM pg_partition_tree($1)),
     members AS (SELECT $1::oid AS oid UNION SELECT h.inhrelid FROM pg_inherits h JOIN members m ON m.oid = h.inhparent)
SELECT EXISTS (SELECT FROM pg_constraint f JOIN tree ON f.confrelid = tree.oid
               WHERE f.contype = 'f' AND f.conrelid NOT IN (SELECT oid FROM tree)) AS is_pointed_to,
       EXISTS (SELECT FROM members m JOIN pg_class c ON c.oid = m.oid AND c.relkind = 'r'
               WHERE (c.relreplident = 'n' OR c.relreplident = 'd'
                      AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
                      -- An identity with generated columns, which are not published by default.
                      OR c.relreplident = 'f' AND current_setting('server_version_num')::int >= 180000
                      AND EXISTS (SELECT FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> '' AND NOT g.attisdropped))
                 AND EXISTS (SELECT FROM pg_publication p JOIN pg_publication_tables t ON t.pubname = p.pubname
                             JOIN pg_class a ON a.relname = t.tablename
                             JOIN pg_namespace n ON n.oid = a.relnamespace AND n.nspname = t.schemaname
                             WHERE p.pubdelete AND (a.oid = c.oid OR a.oid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))))
         AS unpublishable,
       (SELECT count(*) FROM pg_index WHERE indrelid = $1 AND (indisunique OR indisexclusion)) > 1 AS other_unique,
       EXISTS (SELECT FROM pg_trigger t JOIN tree ON t.tgrelid = tree.oid
               -- Row (1), before (2); insert (4) or update (16); see pg_trigger.h.
               WHERE t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0 AND NOT t.tgisinternal AND t.tgenabled <> 'D')
         AS suppresses,
       (SELECT min(r.rulename)::text FROM pg_rewrite r
        WHERE r.ev_class = $1 AND r.ev_type IN ('2', '4') AND r.ev_enabled <> 'D') AS rule,
       row_security_active($1) AS hides,
       current_setting('server_version_num')::int >= 150000 AND current_setting('track_counts')::bool
         AND (SELECT relkind = 'r' AND NOT relhassubclass AND NOT relhasrules FROM pg_class WHERE oid = $1)
         AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled <> 'D')
         AS takes_merge";

impl Staged {
    /// Finds out how the rows of `target`, columns of `table`, will be merged.
    ///
    /// # Errors
    /// When the mode does not fit the table.
    pub async fn prepare(
        settings: &LoadSettings,
        connection: &mut ControlConnection,
        table: &Table,
        target: &Arc<Target>,
    ) -> Result<Self, Error> {
        let newer = match &settings.newer {
            Some(name) => Some((name, newer(name, table, target)?)),
            None => None,
        };
        let look = |client: Client| async {
            let mode = settings.mode;
            let found = match mode {
                // A check: all rows come in beside those that are there.
                Mode::Append => Ok(None),
                _ => Key::find(&client, table, target, &settings.key).await,
            };
            let key = match found {
                // Without a key of its own all rows are the input's.
                Err(KeyError::NotInInput { .. })
                    if mode == Mode::Replace && settings.key.is_empty() =>
                {
                    None
                }
                key => key?,
            };
            if key.is_none() && (mode.needs_key() || newer.is_some()) {
                let table = table.quoted();
                return Err(KeyError::None { table }.into());
            }
            let order = match &newer {
                Some((name, column)) => Some(order(&client, name, column).await?),
                None => None,
            };
            let keeps = settings.superseded == Superseded::Reject;
            let failed = Error::server("reading the catalog");
            let facts = client
                .query_typed_one(FACTS, &[(&table.oid, Type::OID)])
                .await;
            let facts = facts.map_err(&failed)?;
            check(mode, table, &facts)?;
            let mends = facts.get("suppresses");
            let staging = Staging::of(&client, table, target, key.as_ref(), mends, keeps);
            let staging = staging.await.map_err(&failed)?;
            let merge = Merge {
                mode,
                target: target.clone(),
                staging: String::new(),
                key,
                newer: order,
                suppresses: facts.get("suppresses"),
                deferrable: table.deferrable,
                truncates: facts.get("unpublishable"),
                by_merge: facts.get("takes_merge"),
                is_pointed_to: facts.get("is_pointed_to"),
                rows_meet: table.rows_need_each_other || facts.get("other_unique"),
                full: staging.stamp == Stamp::Full,
                guards: settings.guards,
            };
            check_identities(&merge, table)?;
            Ok((client, (merge, staging)))
        };
        let (merge, staging) = connection.ask("reading the catalog", look).await?;
        if merge.mode == Mode::Replace && merge.is_pointed_to && merge.key.is_none() {
            return Err(SettingsError(format!(
                "--mode replace: other tables point to {}, so rows that come again must stay, and the input does not have its key: add the columns of the key, or name them with --key",
                table.quoted()
            ))
            .into());
        }
        Ok(Staged {
            merge,
            place: Place::from(table),
            name: table.name.clone(),
            staging,
        })
    }

    /// Opens the staging table of the job and the import in it: as an unfinished run left them, if
    /// that had the very same input, else new ones.
    ///
    /// # Errors
    /// What the ledger says, or the server.
    pub async fn open(
        &mut self,
        lease: &Lease,
        origin: &mut Origin,
        settings: &LoadSettings,
        connection: &mut ControlConnection,
        control: &Control,
    ) -> Result<(Table, Arc<Target>, Ledger), Error> {
        let LedgerUse::On { import_id, restart } = &settings.ledger else {
            return Err(LedgerError::Unusable("a staged load needs the ledger".to_string()).into());
        };
        forget_finished(connection, import_id.as_deref()).await?;
        let inputs = origin.inputs.clone();
        let mut anew =
            *restart || inputs.iter().any(|input| !is_file(input)) && import_id.is_none();
        loop {
            let (table, target) = self.find(lease, settings, connection, anew).await?;
            origin.inputs.clone_from(&inputs);
            let written = Written {
                table: &table,
                target: &target,
                merge: None,
            };
            let opened = origin
                .open_import(settings, connection, written, Some(lease), control)
                .await;
            let ledger = match opened {
                Ok(Some(ledger)) => ledger,
                Ok(None) => {
                    return Err(LedgerError::Unusable(
                        "a staged load needs the ledger".to_string(),
                    )
                    .into());
                }
                // Another input than that of the run that did not finish.
                Err(Error::Ledger(LedgerError::Changed(_))) if !anew => {
                    anew = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mode = settings.mode.name();
            let owns = |client: Client| async {
                let owns = ledger.owns(&client, mode).await;
                let owns = owns.map_err(Error::server("opening the import in the ledger"))?;
                Ok((client, owns))
            };
            if connection
                .ask("opening the import in the ledger", owns)
                .await?
            {
                self.merge.staging.clone_from(&target.table);
                return Ok((table, target, ledger));
            }
            if anew {
                return Err(LedgerError::Unusable(format!(
                    "import {} is of other sources; name another --import-id",
                    ledger.import_id
                ))
                .into());
            }
            anew = true;
        }
    }

    /// Opens the import of batches that are merged one by one: what is written, how that is merged then,
    /// and where it is noted. Begins anew if what an earlier run has merged is not the beginning of the
    /// input.
    ///
    /// # Errors
    /// What the ledger says, or the server.
    pub async fn open_batches(
        self,
        lease: Option<&Lease>,
        origin: &mut Origin,
        settings: &LoadSettings,
        connection: &mut ControlConnection,
        control: &Control,
        table: &Table,
    ) -> Result<(Arc<Target>, Option<Merge>, Option<Ledger>), Error> {
        let merge = Merge {
            staging: target::BATCH.to_string(),
            full: false,
            ..self.merge
        };
        // Rungs that send statements merge by them where these can; any other way it is COPY's.
        let by_statement = settings.strategy != StrategyKind::Copy && origin.mapping.is_none();
        let upsert = merge.upsert(self.staging.stamp).filter(|_| by_statement);
        let target = Arc::new(match upsert {
            Some(upsert) => Target {
                upsert: Some(Arc::new(upsert)),
                ..Target::clone(&merge.target)
            },
            None => self.staging.of_batch(&merge.target),
        });
        if target.batches.is_some() && settings.commits_alone() {
            return Err(SettingsError(format!(
                "--commit row: rows are merged into {} through a temporary table, which needs a transaction for each batch; leave it out, or --no-ledger",
                table.quoted()
            ))
            .into());
        }
        if let LedgerUse::On { import_id, .. } = &settings.ledger {
            forget_finished(connection, import_id.as_deref()).await?;
        }
        let inputs = origin.inputs.clone();
        loop {
            let written = Written {
                table,
                target: &target,
                merge: Some(&merge),
            };
            let opened = origin
                .open_import(settings, connection, written, lease, control)
                .await?;
            let Some(ledger) = opened.as_ref().filter(|_| !origin.is_begun_in_order()) else {
                let merge = Some(merge).filter(|_| target.upsert.is_none());
                return Ok((target, merge, opened));
            };
            let forget = |client: Client| async {
                ledger.forget_merged(&client).await?;
                Ok((client, ()))
            };
            let doing = "opening the import in the ledger";
            connection.ask(doing, forget).await?;
            origin.inputs.clone_from(&inputs);
        }
    }

    /// The staging table of the job.
    async fn find(
        &self,
        lease: &Lease,
        settings: &LoadSettings,
        connection: &mut ControlConnection,
        anew: bool,
    ) -> Result<(Table, Arc<Target>), Error> {
        let create = |name: &str| self.staging.create(name);
        let key = self.merge.key.iter().flat_map(|key| &key.columns);
        let key: Vec<&str> = key.map(|column| column.name.as_str()).collect();
        let newer = self.merge.newer.as_ref().map(|newer| &newer.column);
        let shape = json!({
            "definition": self.staging.definition, "mode": settings.mode, "key": key, "newer": newer,
            "limit": settings.read.limit,
        });
        let request = StagingRequest {
            lease,
            target: &self.place,
            table_name: &self.name,
            shape: &shape,
            full: self.merge.full,
            create: &create,
        };
        let find = |mut client: Client| async {
            let name = ledger::staging(&mut client, &request, anew).await?;
            let table = Table::find(&client, &name).await?;
            Ok((client, table))
        };
        let table = connection.ask("making the staging table", find).await?;
        let target = Arc::new(self.staging.target(&table));
        Ok((table, target))
    }
}

/// Forgets a finished import of the name that the run is given, if it is given one.
async fn forget_finished(
    connection: &mut ControlConnection,
    import_id: Option<&str>,
) -> Result<(), Error> {
    let Some(import_id) = import_id else {
        return Ok(());
    };
    let forget = |client: Client| async {
        ledger::forget_finished(&client, import_id).await?;
        Ok((client, ()))
    };
    let doing = "opening the import in the ledger";
    connection.ask(doing, forget).await
}

fn is_file(input: &Input) -> bool {
    matches!(input.size(), Ok(Some(_)))
}

/// Whether the table does what the statements of a merge say, and shows all of its rows.
fn check(mode: Mode, table: &Table, facts: &Row) -> Result<(), SettingsError> {
    let (mode_name, table) = (mode.name(), table.quoted());
    if let (Some(rule), true) = (facts.get::<_, Option<&str>>("rule"), mode != Mode::Ignore) {
        return Err(SettingsError(format!(
            "--mode {mode_name}: {table} has the rule \"{rule}\" on UPDATE or DELETE, which does something else than what the mode promises; put a trigger in its place, or load with the rule disabled (ALTER TABLE ... DISABLE RULE)"
        )));
    }
    if facts.get("hides") && matches!(mode, Mode::Replace | Mode::Sync) {
        return Err(SettingsError(format!(
            "--mode {mode_name}: policies of {table} may hide rows from this role, so that it cannot make the table exactly the input; load as a role that bypasses them"
        )));
    }
    Ok(())
}

/// Whether the columns of rows that are there may be set.
fn check_identities(merge: &Merge, table: &Table) -> Result<(), SettingsError> {
    let updates = match merge.mode {
        Mode::Upsert | Mode::Sync => true,
        Mode::Replace => merge.is_pointed_to,
        Mode::Append | Mode::Ignore => false,
    };
    let is_key = |name: &str| {
        let mut key = merge.key.iter().flat_map(|key| &key.columns);
        key.any(|column| column.name == name)
    };
    let mut columns = merge.target.inputs().iter();
    let fixed = columns.find(|it| it.identity_always && !is_key(&it.name));
    match fixed.filter(|_| updates) {
        None => Ok(()),
        Some(Column { name, .. }) => Err(SettingsError(format!(
            "--mode {}: column \"{name}\" of {} is GENERATED ALWAYS AS IDENTITY, which no UPDATE may set; leave it out with --skip, or make it GENERATED BY DEFAULT",
            merge.mode.name(),
            table.quoted()
        ))),
    }
}

/// The order by which values of the column of `--newer` are newer.
async fn order(client: &Client, name: &str, column: &Column) -> Result<Newer, Error> {
    let found = Newer::find(client, column).await;
    let found = found.map_err(Error::server("reading the catalog"))?;
    found.ok_or_else(|| {
        SettingsError(format!(
            "--newer {name}: values of type {} have no order",
            column.base_type_name
        ))
        .into()
    })
}

/// The column that says what is newer.
fn newer(name: &str, table: &Table, target: &Target) -> Result<Column, Error> {
    let picked = table.pick(&[name.to_string()])?;
    let named = |input: &&Column| picked.iter().any(|column| column.name == input.name);
    target.inputs().iter().find(named).cloned().ok_or_else(|| {
        SettingsError(format!(
            "--newer {name}: the input does not have that column"
        ))
        .into()
    })
}
