//! Merges: what a mode makes of the table, once all rows are staged, or batch by batch.

mod batchwise;
mod blame;
mod careful;
mod error;
mod guard;
mod mode;
mod part;
mod sql;
mod step;
mod upsert;
mod writer;

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::target::{Column, Key, Target, quote_name};

pub use error::MergeError;
pub use guard::{Guard, Guards, Share};
pub use mode::{MergeAt, Mode, Superseded};
pub use part::{Merged, Part};
pub use step::Step;

/// Memory that the server may take for one sort or hash of a merge, in kB.
const WORK_MEM: u32 = 128 * 1024;

/// How rows are merged into their table.
#[derive(Debug, Clone)]
pub struct Merge {
    pub mode: Mode,
    /// The table, and what of it the input has.
    pub target: Arc<Target>,
    /// The table in which they stand, quoted: a staging table, or the temporary one of a batch.
    pub staging: String,
    pub key: Option<Key>,
    /// The column by which a record is newer than another.
    pub newer: Option<Newer>,
    /// Whether triggers may keep rows out of the table.
    pub suppresses: bool,
    /// Whether constraints may wait for COMMIT.
    pub deferrable: bool,
    /// Whether rows go by TRUNCATE: what is deleted must have an identity to be published.
    pub truncates: bool,
    /// Whether the server has MERGE, takes it for the table, and counts apart what it inserts.
    pub by_merge: bool,
    /// Whether other tables point to rows of this one: those that come again must stay.
    pub is_pointed_to: bool,
    /// Whether a row may be refused because another one of the input is in the table, or not yet.
    pub rows_meet: bool,
    /// Whether each staged row has with it all that a reject is made of.
    pub full: bool,
    pub guards: Guards,
}

/// A column whose greater value wins.
#[derive(Debug, Clone)]
pub struct Newer {
    /// Its name, unquoted.
    pub column: String,
    /// The operator that says what is less, with its schema.
    pub less: String,
}

impl Newer {
    /// The column of a target, by the order that its type has by default.
    ///
    /// # Errors
    /// `None` if it has none, and what the server says.
    pub async fn find(
        client: &Client,
        column: &Column,
    ) -> Result<Option<Self>, tokio_postgres::Error> {
        let less = client
            .query_typed_opt(LESS, &[(&column.base_type, Type::OID)])
            .await?;
        Ok(less.map(|row| Newer {
            column: column.name.clone(),
            less: row.get("less"),
        }))
    }
}

/// What ORDER BY goes by, whatever the search path.
const LESS: &str = "
SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS less
FROM pg_type t
JOIN pg_opclass c ON c.opcdefault AND (c.opcintype = t.oid
     OR c.opcintype = CASE WHEN t.typcategory = 'A' THEN 'anyarray'::regtype
                           ELSE CASE t.typtype WHEN 'e' THEN 'anyenum'::regtype WHEN 'r' THEN 'anyrange'::regtype
                                               WHEN 'm' THEN 'anymultirange'::regtype WHEN 'c' THEN 'record'::regtype END END
     OR EXISTS (SELECT FROM pg_cast k WHERE k.castsource = t.oid AND k.casttarget = c.opcintype AND k.castmethod = 'b'
                                        AND k.castcontext = 'i'))
JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
JOIN pg_amop p ON p.amopfamily = c.opcfamily AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype
              AND p.amopstrategy = 1
JOIN pg_operator o ON o.oid = p.amopopr
JOIN pg_namespace n ON n.oid = o.oprnamespace
JOIN pg_type ct ON ct.oid = c.opcintype
WHERE t.oid = $1
ORDER BY c.opcintype = t.oid DESC, ct.typispreferred DESC, c.opcintype
LIMIT 1";

impl Merge {
    /// Whether the table is made exactly the input, which other writers have to wait for.
    pub fn is_exact(&self) -> bool {
        matches!(self.mode, Mode::Replace | Mode::Sync)
    }

    /// SQL that tells the server how many rows are staged and how their keys are spread.
    pub fn analyze(&self) -> String {
        let key = self.key.iter().flat_map(|key| &key.columns);
        let key: Vec<String> = key.map(|column| quote_name(&column.name)).collect();
        let columns = match key.is_empty() {
            true => String::new(),
            false => format!(" ({})", key.join(", ")),
        };
        format!(
            "SET LOCAL default_statistics_target = 10; ANALYZE {}{columns}; SET LOCAL default_statistics_target TO DEFAULT",
            self.staging
        )
    }

    /// SQL that lets the statements of a transaction hash in memory what fits there. Columns of a key
    /// are taken for independent, and a join by several of them for far smaller than it is: by merge
    /// it would sort both sides, which takes three times as long.
    pub fn plan() -> String {
        format!(
            "SET LOCAL enable_mergejoin = off;
             SELECT set_config('work_mem', '{WORK_MEM}kB', true)
             WHERE (SELECT setting::bigint < {WORK_MEM} FROM pg_settings WHERE name = 'work_mem')"
        )
    }

    /// Whether the rows may be merged in parts, each in a transaction of its own.
    pub fn is_divisible(&self) -> bool {
        matches!(self.mode, Mode::Ignore | Mode::Upsert) && !self.rows_meet
    }

    /// Whether rows of the table that the input has too stay where they are.
    fn is_by_key(&self) -> bool {
        match self.mode {
            Mode::Replace => self.is_pointed_to && self.key.is_some(),
            _ => self.key.is_some(),
        }
    }
}
