//! Staging tables: the columns of the input with the types, NOT NULLs and checks of the table that
//! its rows are merged into later, so that most bad rows are found as in any load.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::{Column, Key, Table, Target, quote_name};

/// What a staged row has behind its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Where it stands in the input: its [`Order`].
    Order,
    /// That, and all that a reject is made of: the table may refuse it later.
    Full,
}

impl Stamp {
    /// The column with the line on which the record begins (1-based), unquoted.
    pub const LINE: &'static str = "pgrung.line";
    /// The column with the byte at which it begins (0-based), unquoted.
    pub const START_BYTE: &'static str = "pgrung.start_byte";
    /// The column with its original bytes, unquoted.
    pub const ORIGINAL: &'static str = "pgrung.original";

    /// Names and types of the columns.
    pub(super) fn columns(self) -> &'static [(&'static str, &'static str)] {
        const ALL: [(&str, &str); 4] = [
            (Order::COLUMN, "bigint"),
            (Stamp::LINE, "bigint"),
            (Stamp::START_BYTE, "bigint"),
            (Stamp::ORIGINAL, "bytea"),
        ];
        match self {
            Stamp::Order => &ALL[..1],
            Stamp::Full => &ALL,
        }
    }
}

/// Place of a record among all records of an input: its source, then its number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order(pub i64);

impl Order {
    /// The column that holds it, unquoted.
    pub const COLUMN: &'static str = "pgrung.order";

    /// Bits of the number of a record: a source of 10^12 records is none that anybody loads.
    const RECORD_BITS: u32 = 40;

    /// Of record `record` (1-based) of source `source` (0-based).
    pub fn of(source: usize, record: u64) -> Self {
        Order(((source as i64) << Self::RECORD_BITS) | record.cast_signed())
    }

    /// SQL of the number of the source of an order.
    pub fn source_of(order: &str) -> String {
        format!("({order} >> {})::int", Self::RECORD_BITS)
    }

    /// SQL of the number of the record of an order.
    pub fn record_of(order: &str) -> String {
        format!("({order} & ((1::bigint << {}) - 1))", Self::RECORD_BITS)
    }

    /// Number of the source (0-based).
    pub fn source(self) -> i32 {
        (self.0 >> Self::RECORD_BITS) as i32
    }

    /// Number of the record (1-based).
    pub fn record(self) -> u64 {
        (self.0 & ((1 << Self::RECORD_BITS) - 1)).cast_unsigned()
    }
}

/// What is known of a fully stamped row while rows are merged one by one: nothing, that another one
/// of its key wins (`l`), or that it is merged (`d`). Unquoted.
pub const STATE: &str = "pgrung.state";

/// SQL that makes staged rows be found by their order.
pub fn index_staged(staging: &str) -> String {
    let name = staging
        .rsplit('.')
        .next()
        .unwrap_or(staging)
        .trim_matches('"');
    let (index, order) = (
        quote_name(&format!("{name}_order")),
        quote_name(Order::COLUMN),
    );
    format!("CREATE INDEX IF NOT EXISTS {index} ON {staging} ({order})")
}

/// The name of the index that proves that no two staged rows have one key, quoted.
pub fn unique_index(staging: &str) -> String {
    let name = staging
        .rsplit('.')
        .next()
        .unwrap_or(staging)
        .trim_matches('"');
    quote_name(&format!("{name}_key"))
}

/// What a staging table is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// Definitions of columns and checks, separated by commas.
    pub definition: String,
    /// The same for a batch, whose rows are stamped with their order only.
    of_batch: String,
    pub stamp: Stamp,
    /// Columns of the key, quoted.
    key: String,
}

const COLUMNS: &str = "
SELECT format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attcollation <> t.typcollation
                   THEN (SELECT format(' COLLATE %I.%I', n.nspname, l.collname)
                         FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
                         WHERE l.oid = a.attcollation) ELSE '' END)
       || CASE WHEN a.attnotnull AND NOT $4 OR a.attname = ANY ($3) THEN ' NOT NULL' ELSE '' END AS definition
FROM unnest($2::text[]) WITH ORDINALITY AS mine (name, place)
JOIN pg_attribute a ON a.attrelid = $1 AND a.attname = mine.name
JOIN pg_type t ON t.oid = a.atttypid
ORDER BY mine.place";

/// Checks that only look at columns of the input.
const CHECKS: &str = "
SELECT format('CONSTRAINT %I %s', c.conname, regexp_replace(pg_get_constraintdef(c.oid), ' NOT VALID$', '')) AS definition
FROM pg_constraint c
WHERE c.conrelid = $1 AND c.contype = 'c'
  AND c.conkey <@ ARRAY(SELECT attnum FROM pg_attribute WHERE attrelid = $1 AND attname = ANY ($2))
ORDER BY c.conname";

/// Whether anything but the types, NOT NULLs and checks of the input's columns can refuse a row, or
/// change what it is refused for: another table, another row, an expression, a size.
const REFUSES_LATE: &str = "
WITH tree AS (SELECT $1::oid AS oid UNION SELECT relid FROM pg_partition_tree($1))
SELECT EXISTS (SELECT FROM pg_class WHERE oid = $1 AND (relkind <> 'r' OR relrowsecurity OR relhassubclass))
    OR EXISTS (SELECT FROM pg_trigger t JOIN tree ON t.tgrelid = tree.oid
               WHERE t.tgenabled <> 'D')
    OR EXISTS (SELECT FROM pg_constraint c JOIN tree ON c.conrelid = tree.oid
               WHERE c.contype = 'c' AND NOT c.conkey <@
                     ARRAY(SELECT attnum FROM pg_attribute WHERE attrelid = $1 AND attname = ANY ($2)))
    OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1 AND attgenerated <> '' AND NOT attisdropped)
    OR EXISTS (SELECT FROM pg_index i JOIN tree ON i.indrelid = tree.oid
               WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL OR i.indisexclusion
                  OR i.indisunique AND NOT coalesce(
                       ARRAY(SELECT a.attname::text FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k
                             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k ORDER BY 1) = $3, false)
                  -- A value may be too large for an index.
                  OR EXISTS (SELECT FROM unnest(i.indkey::int2[]) k
                             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k
                             WHERE a.attlen < 0 AND a.atttypmod NOT BETWEEN 0 AND 500
                               AND NOT a.atttypid IN ('numeric'::regtype, 'inet'::regtype, 'cidr'::regtype)))
  AS late";

impl Staging {
    /// What the rows of `target`, columns of `table`, are staged in. `mends`: triggers may fill in or
    /// mend what is refused else. `full`: each row is stamped with all that a reject is made of,
    /// whatever the table.
    ///
    /// # Errors
    /// What the server says.
    pub async fn of(
        client: &Client,
        table: &Table,
        target: &Target,
        key: Option<&Key>,
        mends: bool,
        full: bool,
    ) -> Result<Self, tokio_postgres::Error> {
        let names: Vec<&str> = target.inputs().iter().map(|it| it.name.as_str()).collect();
        let key = key.iter().flat_map(|key| &key.columns);
        let mut key: Vec<&str> = key.map(|column| column.name.as_str()).collect();
        key.sort_unstable();
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&table.oid, Type::OID),
            (&names, Type::TEXT_ARRAY),
            (&key, Type::TEXT_ARRAY),
            (&mends, Type::BOOL),
        ];
        let definitions = client.query_typed(COLUMNS, &parameters).await?;
        let checks = match mends {
            true => Vec::new(),
            false => client.query_typed(CHECKS, &parameters[..2]).await?,
        };
        let late = client
            .query_typed_one(REFUSES_LATE, &parameters[..3])
            .await?;
        let late: bool = late.get("late");
        let stamp = match full || late {
            true => Stamp::Full,
            false => Stamp::Order,
        };
        let rows = |rows: Vec<tokio_postgres::Row>| {
            let definition = |row: &tokio_postgres::Row| row.get::<_, String>("definition");
            rows.iter().map(definition).collect::<Vec<_>>()
        };
        let (definitions, checks) = (rows(definitions), rows(checks));
        let define = |stamp: Stamp, state: bool| {
            let stamps = stamp.columns().iter();
            let stamps = stamps.map(|(name, ty)| format!("{} {ty} NOT NULL", quote_name(name)));
            let state = state.then(|| format!("{} \"char\"", quote_name(STATE)));
            let all = definitions.iter().cloned().chain(stamps).chain(state);
            let all: Vec<String> = all.chain(checks.iter().cloned()).collect();
            all.join(", ")
        };
        let key: Vec<String> = key.iter().map(|name| quote_name(name)).collect();
        Ok(Staging {
            definition: define(stamp, stamp == Stamp::Full),
            of_batch: define(Stamp::Order, false),
            stamp,
            key: key.join(", "),
        })
    }

    /// SQL that makes it as table `name`, quoted. Unlogged: a crash of the server empties it, and with
    /// it what the ledger knows of it.
    pub fn create(&self, name: &str) -> String {
        let Staging {
            definition,
            stamp,
            key,
            ..
        } = self;
        // Its rows are read once; it is analyzed when they are all there.
        let mut sql =
            format!("CREATE UNLOGGED TABLE {name} ({definition}) WITH (autovacuum_enabled = off)");
        if *stamp == Stamp::Full && !key.is_empty() {
            // Empty until rows are merged one by one.
            sql.push_str(&format!(
                "; CREATE INDEX ON {name} ({key}) WHERE {} = 'l'",
                quote_name(STATE)
            ));
        }
        sql
    }

    /// How the strategies write the temporary table of a batch for `target`.
    pub fn of_batch(&self, target: &Target) -> Target {
        let stamps = Stamp::Order.columns().iter();
        let stamps = stamps.map(|(name, ty)| Column::raw(name, ty, Type::INT8_ARRAY, false));
        let columns = target.inputs().iter().cloned().chain(stamps);
        let create = format!(
            "CREATE TEMP TABLE pgrung_batch ({}) ON COMMIT DROP",
            self.of_batch
        );
        Target {
            table: target.table.clone(),
            columns: columns.collect(),
            stamp: Some(Stamp::Order),
            landing: None,
            batches: Some(create.into()),
            upsert: None,
        }
    }

    /// How the strategies write the staging table that was found as `table`.
    pub fn target(&self, table: &Table) -> Target {
        Target {
            table: table.quoted(),
            columns: table
                .columns
                .iter()
                .filter(|column| column.name != STATE)
                .cloned()
                .collect(),
            stamp: Some(self.stamp),
            landing: None,
            batches: None,
            upsert: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_records_and_sources_are_greater() {
        let orders = [(0, 1), (0, 2), (0, 1 << 39), (1, 1), (7, 3)];
        let orders = orders.map(|(source, record)| (source, record, Order::of(source, record)));
        for (source, record, order) in orders {
            assert_eq!((order.source(), order.record()), (source as i32, record));
        }
        assert!(orders.is_sorted_by_key(|(_, _, order)| order.0));
    }
}
