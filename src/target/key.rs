//! The key by which records of the input and rows of the table are the same: columns with a unique
//! index.

use tokio_postgres::Client;
use tokio_postgres::types::{Oid, Type};

use super::table::{Column, Table, TableError};
use super::{Target, quote_name};
use crate::server_error;

/// Columns that have a unique index, and are all in the input.
#[derive(Debug, Clone)]
pub struct Key {
    pub columns: Vec<Column>,
    /// Whether INSERT ... ON CONFLICT can use the index: it is not deferrable.
    pub arbiter: bool,
    /// Whether the table takes no row without it.
    pub not_null: bool,
    /// How the index compares each of them.
    pub operators: Vec<Operators>,
    /// Columns whose values may be equal and yet not the same: `1.0` and `1.00`, or by a collation.
    pub loose: Vec<String>,
}

/// Operators of a column, with their schemas.
#[derive(Debug, Clone)]
pub struct Operators {
    pub equal: String,
    pub less: String,
    pub greater_or_equal: String,
}

/// Why there is no such key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No key was named, and the table has no primary key.
    #[error("{table} has no primary key: name the columns that tell its rows apart with --key")]
    None {
        /// The table.
        table: String,
    },
    /// Nothing keeps two rows of one key out of the table.
    #[error(
        "{table} has no unique index on ({columns}): CREATE UNIQUE INDEX ON {table} ({columns})"
    )]
    NotUnique {
        /// The table.
        table: String,
        /// The columns, quoted.
        columns: String,
    },
    /// The input does not have it.
    #[error(
        "column {column} of the key of {table} is not in the input, whose columns are {columns}; --key names another key"
    )]
    NotInInput {
        /// The table.
        table: String,
        /// The column, quoted.
        column: String,
        /// The columns of the input, quoted.
        columns: String,
    },
    /// A name is no column.
    #[error("--key: {0}")]
    Column(TableError),
    /// The catalog could not be read.
    #[error("reading the catalog: {}", server_error::describe(.0))]
    Server(#[from] tokio_postgres::Error),
}

/// The unique indexes of a table that cover all of its rows by plain columns, compared as anywhere else.
const INDEXES: &str = "
SELECT i.indexrelid AS index, i.indisprimary AS is_primary, i.indimmediate AS immediate,
       NOT EXISTS (SELECT FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS k (attnum) JOIN pg_attribute a
                   ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE NOT a.attnotnull) AS not_null,
       ARRAY(SELECT a.attname::text FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1])
             WITH ORDINALITY AS k (attnum, place) JOIN pg_attribute a
             ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place) AS columns
FROM pg_index i
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indisready
  AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT EXISTS (SELECT FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1], i.indcollation::oid[]) AS k (attnum, coll)
                  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                  WHERE a.attcollation <> k.coll)
ORDER BY i.indisprimary DESC, i.indimmediate DESC";

/// The operators by which the index compares its columns: `=`, `<` and `>=` as SQL finds them whatever
/// the search path. (Strategies 3, 1 and 4 of a btree.)
const OPERATORS: &str = "
SELECT ARRAY(SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
             FROM unnest('{3,1,4}'::int2[]) WITH ORDINALITY AS s (strategy, place)
             JOIN pg_amop p ON p.amopfamily = c.opcfamily AND p.amoplefttype = c.opcintype
                           AND p.amoprighttype = c.opcintype AND p.amopstrategy = s.strategy
             JOIN pg_operator o ON o.oid = p.amopopr
             JOIN pg_namespace n ON n.oid = o.oprnamespace ORDER BY s.place) AS operators
FROM pg_index i, unnest(i.indclass::oid[]) WITH ORDINALITY AS k (opclass, place)
JOIN pg_opclass c ON c.oid = k.opclass
WHERE i.indexrelid = $1 AND k.place <= i.indnkeyatts
ORDER BY k.place";

/// The columns whose equal values are the same to the byte. (A btree says so in support function 4;
/// see `BTEQUALIMAGE_PROC` in nbtree.h.)
const EXACT: &str = "
SELECT a.attname::text AS name
FROM unnest($2::text[], $3::oid[]) AS mine (name, base)
JOIN pg_attribute a ON a.attrelid = $1 AND a.attname = mine.name
JOIN pg_type t ON t.oid = mine.base
WHERE (t.typtype = 'e' OR EXISTS
           (SELECT FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
            JOIN pg_amproc p ON p.amprocfamily = c.opcfamily AND p.amproclefttype = c.opcintype AND p.amprocnum = 4
            WHERE c.opcdefault AND (c.opcintype = t.oid OR c.opcintype = 'text'::regtype AND t.oid = 'varchar'::regtype)))
  AND NOT EXISTS (SELECT FROM pg_collation l WHERE l.oid = a.attcollation AND NOT l.collisdeterministic)
  AND t.oid <> 'bpchar'::regtype";

impl Key {
    /// The key of `table` that `named` are the columns of; without any its primary key, if it has
    /// one.
    ///
    /// # Errors
    /// When they are no key, or not in the input.
    pub async fn find(
        client: &Client,
        table: &Table,
        target: &Target,
        named: &[String],
    ) -> Result<Option<Self>, KeyError> {
        let named = match named {
            [] => None,
            named => Some(table.pick(named).map_err(KeyError::Column)?),
        };
        let mut wanted: Option<Vec<String>> = named.map(names);
        if let Some(names) = &mut wanted {
            names.sort_unstable();
        }
        let indexes = client
            .query_typed(INDEXES, &[(&table.oid, Type::OID)])
            .await?;
        let index = indexes.iter().find(|index| match &wanted {
            Some(wanted) => {
                let mut columns: Vec<String> = index.get("columns");
                columns.sort_unstable();
                columns == *wanted
            }
            None => index.get("is_primary"),
        });
        let Some(index) = index else {
            return match wanted {
                None => Ok(None),
                Some(wanted) => Err(KeyError::NotUnique {
                    table: table.quoted(),
                    columns: quoted(&wanted),
                }),
            };
        };
        let mut key = Key {
            columns: Vec::new(),
            arbiter: index.get("immediate"),
            not_null: index.get("not_null"),
            operators: operators(client, index.get("index")).await?,
            loose: Vec::new(),
        };
        let input = target.inputs();
        for name in index.get::<_, Vec<String>>("columns") {
            let column = input.iter().find(|column| column.name == name);
            key.columns
                .push(column.cloned().ok_or_else(|| KeyError::NotInInput {
                    table: table.quoted(),
                    column: quote_name(&name),
                    columns: quoted(&names(input.to_vec())),
                })?);
        }
        let bases: Vec<u32> = key.columns.iter().map(|column| column.base_type).collect();
        let exact = client
            .query_typed(
                EXACT,
                &[
                    (&table.oid, Type::OID),
                    (&names(key.columns.clone()), Type::TEXT_ARRAY),
                    (&bases, Type::OID_ARRAY),
                ],
            )
            .await?;
        let exact: Vec<String> = exact.iter().map(|row| row.get("name")).collect();
        key.loose = names(key.columns.clone());
        key.loose.retain(|name| !exact.contains(name));
        Ok(Some(key))
    }
}

async fn operators(client: &Client, index: Oid) -> Result<Vec<Operators>, tokio_postgres::Error> {
    let rows = client
        .query_typed(OPERATORS, &[(&index, Type::OID)])
        .await?;
    let operators = rows.iter().map(|row| {
        let mut operators = row.get::<_, Vec<String>>("operators").into_iter();
        // Every btree has them.
        let mut next = |usual: &str| operators.next().unwrap_or_else(|| usual.to_string());
        Operators {
            equal: next("="),
            less: next("<"),
            greater_or_equal: next(">="),
        }
    });
    Ok(operators.collect())
}

fn names(columns: Vec<Column>) -> Vec<String> {
    columns.into_iter().map(|column| column.name).collect()
}

/// Names quoted, separated by commas.
fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quote_name(name)).collect();
    quoted.join(", ")
}
