//! Maps: columns that are SQL expressions of the fields of a record. A batch then goes as text into a
//! temporary table of its transaction, and from there through the expressions into the table.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Oid, Type};

use super::expression::{Expression, ExpressionError, Piece};
use super::near::nearest;
use super::{Column, Order, Stamp, Table, TableError, Target, quote_name};
use crate::server_error;

/// A column and what it is filled with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Its name.
    pub column: String,
    /// SQL in which `:value` is the field of that name as text, `:field("Name")` another one,
    /// `:source`, `:record` and `:line` where the record came from.
    pub expression: String,
}

impl FromStr for Map {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let needed = || "column = expression is needed".to_string();
        let (column, rest) = match text.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let mut behind = 0;
                let end = loop {
                    let at = behind + quoted[behind..].find('"').ok_or_else(needed)?;
                    match quoted[at + 1..].starts_with('"') {
                        true => behind = at + 2,
                        false => break at,
                    }
                };
                (
                    quoted[..end].replace("\"\"", "\""),
                    quoted[end + 1..].trim_start(),
                )
            }
            None => {
                let end = text.find('=').ok_or_else(needed)?;
                (text[..end].trim().to_string(), &text[end..])
            }
        };
        let expression = rest.strip_prefix('=').ok_or_else(needed)?.trim();
        match column.is_empty() || expression.is_empty() {
            true => Err(needed()),
            false => Ok(Map {
                column,
                expression: expression.to_string(),
            }),
        }
    }
}

/// Why fields cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The table does not have what is named.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The expression is none, or the server does not take it.
    #[error("--map {column}: {message}")]
    Expression {
        /// The column.
        column: String,
        /// What is wrong.
        message: String,
    },
    /// The server is away, or does not take it all together.
    #[error("--map: {}", server_error::describe(.0))]
    Server(tokio_postgres::Error),
}

// By hand: as its source the error would be told twice.
impl From<tokio_postgres::Error> for MapError {
    fn from(error: tokio_postgres::Error) -> Self {
        MapError::Server(error)
    }
}

/// Which columns come of which fields.
#[derive(Debug, Clone)]
pub struct Mapping {
    maps: Vec<Map>,
    /// Names of the fields of a record.
    fields: Vec<String>,
    /// Which of them have the name of a column that takes JSON.
    json: Vec<bool>,
    feeds: Vec<Feed>,
    uses_order: bool,
    uses_line: bool,
}

/// A column of the table, and its value as SQL on a [`ROW`] of the temporary table.
#[derive(Debug, Clone)]
struct Feed {
    column: Column,
    sql: String,
    /// The field or the expression, as people wrote it.
    origin: String,
}

/// How a batch gets from the temporary table into that which is loaded.
#[derive(Debug, Clone)]
pub struct Landing {
    pub(super) maps: Vec<Map>,
    /// SQL that makes the temporary table, once a transaction.
    pub create: String,
    /// SQL that takes its rows on.
    pub insert: String,
    /// What the rows are inserted into.
    pub(super) into: Arc<Target>,
    /// Fields of which a string of a JSON record stays JSON.
    pub(super) json: Vec<bool>,
    /// Columns with the SQL that reads each of them, to ask which is at fault.
    pub reads: Vec<(String, String)>,
}

/// The temporary table.
pub(super) const RAW: &str = r#""pg_temp"."pgrung_rows""#;

/// A row of it. An expression may have queries of its own, whose names must not hide it.
const ROW: &str = "pgrung_row";

/// Stands for the names of the sources, which are known late.
const SOURCES: &str = "\u{1}sources\u{1}";

impl Mapping {
    /// Which columns of `table` come of records with these fields: those that `maps` name, and those
    /// that have the name of a field.
    ///
    /// # Errors
    /// When a field is neither a column nor used, or an expression uses what there is not.
    pub fn new(maps: &[Map], fields: Vec<String>, table: &Table) -> Result<Self, MapError> {
        let mut expressions = Vec::new();
        for (map, column) in maps.iter().zip(mapped(maps, table)?) {
            let expression = Expression::parse(&map.expression).map_err(|e| wrong(&column, &e))?;
            expressions.push((column, expression));
        }
        let mut names = fields.iter().enumerate();
        if let Some((_, name)) = names.find(|(at, name)| fields[..*at].contains(name)) {
            return Err(TableError::Twice(name.clone()).into());
        }
        let named = |name| table.pick(std::slice::from_ref(name));
        let takes_json = |name| named(name).is_ok_and(|columns| columns[0].is_json());
        let mut mapping = Mapping {
            maps: maps.to_vec(),
            json: fields.iter().map(takes_json).collect(),
            fields,
            feeds: Vec::new(),
            uses_order: false,
            uses_line: false,
        };
        let mut used = Vec::new();
        let mut feeds = Vec::new();
        for ((column, expression), map) in expressions.into_iter().zip(maps) {
            let sql = mapping.sql(&column, &expression, &mut used)?;
            feeds.push(Feed {
                column,
                sql,
                origin: map.expression.clone(),
            });
        }
        let mut plain = Vec::new();
        for (index, name) in mapping.fields.iter().enumerate() {
            match table.pick(std::slice::from_ref(name)) {
                Ok(picked) if feeds.iter().any(|feed| picked[0] == feed.column) => {}
                Ok(_) => plain.push((index, name.clone())),
                Err(_) if used.contains(&index) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !plain.is_empty() {
            let names: Vec<String> = plain.iter().map(|(_, name)| name.clone()).collect();
            for ((index, name), column) in plain.into_iter().zip(table.pick(&names)?) {
                let sql = read_text(&column, &field(index));
                mapping.feeds.push(Feed {
                    column,
                    sql,
                    origin: name,
                });
            }
        }
        mapping.feeds.extend(feeds);
        Ok(mapping)
    }

    /// The names of fields that `maps` use, but for those of their columns.
    ///
    /// # Errors
    /// When an expression is none.
    pub fn fields_of(maps: &[Map]) -> Result<Vec<String>, MapError> {
        let mut names = Vec::new();
        for Map { column, expression } in maps {
            let parsed = Expression::parse(expression);
            let parsed = parsed.map_err(|error| MapError::Expression {
                column: column.clone(),
                message: error.to_string(),
            })?;
            names.extend(parsed.pieces().iter().filter_map(|piece| match piece {
                Piece::Field(name) => Some(name.clone()),
                _ => None,
            }));
        }
        Ok(names)
    }

    /// The columns of the table that are written.
    pub fn columns(&self) -> Vec<Column> {
        self.feeds.iter().map(|feed| feed.column.clone()).collect()
    }

    /// `expression` as SQL on the temporary table; notes which fields it uses.
    fn sql(
        &mut self,
        column: &Column,
        expression: &Expression,
        used: &mut Vec<usize>,
    ) -> Result<String, MapError> {
        let mut sql = String::new();
        for piece in expression.pieces() {
            match piece {
                Piece::Sql(text) => sql.push_str(text),
                Piece::Value | Piece::Field(_) => {
                    let name = match piece {
                        Piece::Field(name) => name,
                        _ => &column.name,
                    };
                    let index = self.field(name).map_err(|near| {
                        let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                        let message = match piece {
                            Piece::Field(_) => format!("the input has no field {}{near}", quote_name(name)),
                            _ => format!(
                                "the input has no field {} that :value could be; name another one with :field(\"Name\"){near}",
                                quote_name(name)
                            ),
                        };
                        MapError::Expression { column: column.name.clone(), message }
                    })?;
                    used.push(index);
                    sql.push_str(&field(index));
                }
                Piece::Source => {
                    self.uses_order = true;
                    let source = Order::source_of(&stamp(Order::COLUMN));
                    sql.push_str(&format!("({SOURCES})[{source} + 1]"));
                }
                Piece::Record => {
                    self.uses_order = true;
                    sql.push_str(&Order::record_of(&stamp(Order::COLUMN)));
                }
                Piece::Line => {
                    self.uses_line = true;
                    sql.push_str(&stamp(Stamp::LINE));
                }
            }
        }
        // Behind a comment at its end.
        Ok(format!("({sql}\n)"))
    }

    /// The place of a field; else the nearest, quoted.
    fn field(&self, name: &str) -> Result<usize, Option<String>> {
        let exact = self.fields.iter().position(|field| field == name);
        let lower = name.to_lowercase();
        let mut alike = (0..)
            .zip(&self.fields)
            .filter(|(_, field)| field.to_lowercase() == lower);
        let found = exact.or_else(|| match (alike.next(), alike.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        });
        found.ok_or_else(|| {
            let near = nearest(name, self.fields.iter().map(String::as_str))?;
            Some(quote_name(&self.fields[near]))
        })
    }

    /// Lets the server look at each expression: its value must be one for each row, and fit its column
    /// of `target`. Text is read as a field of that column would be.
    ///
    /// # Errors
    /// The first expression that the server does not take.
    pub async fn check(mut self, client: &Client, target: &Target) -> Result<Self, MapError> {
        client.batch_execute("BEGIN").await?;
        let checked = self.look(client, target).await;
        client.batch_execute("ROLLBACK").await?;
        checked.map(|()| self)
    }

    async fn look(&mut self, client: &Client, target: &Target) -> Result<(), MapError> {
        let probe = self.landing(Arc::new(target.clone()), Some(Stamp::Full), &[]);
        client.batch_execute(&probe.create).await?;
        let names: Vec<&str> = self.maps.iter().map(|map| map.column.as_str()).collect();
        let plain = self.feeds.len() - names.len();
        for Feed { column, sql, .. } in &mut self.feeds[plain..] {
            let refused = |message: String| MapError::Expression {
                column: column.name.clone(),
                message,
            };
            let said = |error: tokio_postgres::Error| match is_of_expression(&error) {
                true => refused(server_error::describe(&error)),
                false => error.into(),
            };
            // What counts, or brings, other rows has no place in WHERE.
            let look = format!(
                "CREATE TEMP TABLE pgrung_look ON COMMIT DROP AS SELECT {sql} AS v FROM {RAW} {ROW} WHERE {sql} IS NULL WITH NO DATA"
            )
            .replace(SOURCES, "NULL::text[]");
            client.execute_typed(&look, &[]).await.map_err(said)?;
            let types = client
                .query_typed(
                    "SELECT atttypid FROM pg_attribute WHERE attrelid = 'pg_temp.pgrung_look'::regclass AND attnum > 0",
                    &[],
                )
                .await?;
            client
                .batch_execute("DROP TABLE pg_temp.pgrung_look")
                .await?;
            let [ty] = types.as_slice() else {
                return Err(refused("one value is needed".to_string()));
            };
            let ty: Oid = ty.get(0);
            if [Type::TEXT, Type::VARCHAR, Type::BPCHAR]
                .iter()
                .any(|text| text.oid() == ty)
            {
                *sql = read_text(column, &format!("{sql}::text"));
            }
            let fit = format!(
                "CREATE TEMP TABLE pgrung_look ({name} {ty}) ON COMMIT DROP; \
                 INSERT INTO pg_temp.pgrung_look SELECT {sql} FROM {RAW} {ROW} WHERE false; \
                 DROP TABLE pg_temp.pgrung_look",
                name = quote_name(&column.name),
                ty = column.modified_type_name,
            );
            let fit = fit.replace(SOURCES, "NULL::text[]");
            client.batch_execute(&fit).await.map_err(said)?;
        }
        Ok(())
    }

    /// What the strategies write, so that it lands in `into`; `names` are those of the sources.
    pub fn onto(&self, into: Arc<Target>, names: &[Arc<str>]) -> Target {
        let full = self.uses_line || into.stamp == Some(Stamp::Full);
        let stamp = match full {
            true => Some(Stamp::Full),
            false => into.stamp.or(self.uses_order.then_some(Stamp::Order)),
        };
        let stamps = stamp.map_or(&[][..], Stamp::columns).iter();
        let lower: Vec<String> = self.fields.iter().map(|name| name.to_lowercase()).collect();
        let fields = self.fields.iter().map(|name| {
            let alike = lower.iter().filter(|other| **other == name.to_lowercase());
            Column::raw(name, "text", Type::TEXT_ARRAY, alike.count() == 1)
        });
        let stamps = stamps.map(|(name, ty)| match *ty {
            "bytea" => Column::raw(name, ty, Type::BYTEA_ARRAY, false),
            _ => Column::raw(name, ty, Type::INT8_ARRAY, false),
        });
        Target {
            table: into.table.clone(),
            columns: fields.chain(stamps).collect(),
            stamp,
            landing: Some(Arc::new(self.landing(into, stamp, names))),
            batches: None,
            upsert: None,
        }
    }

    fn landing(&self, into: Arc<Target>, stamp: Option<Stamp>, names: &[Arc<str>]) -> Landing {
        let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
        let sources = format!("ARRAY[{}]::text[]", names.join(", "));
        let with_sources = |sql: &String| sql.replace(SOURCES, &sources);
        let stamps = stamp.map_or(&[][..], Stamp::columns).iter();
        let raw = (0..self.fields.len())
            .map(|index| format!("{} text", raw_name(index)))
            .chain(stamps.map(|(name, ty)| format!("{} {ty}", quote_name(name))));
        let raw: Vec<String> = raw.collect();
        let passed_on = into.stamp.map_or(&[][..], Stamp::columns).iter();
        let values = self.feeds.iter().map(|feed| with_sources(&feed.sql));
        let values: Vec<String> = values
            .chain(passed_on.map(|(name, _)| self::stamp(name)))
            .collect();
        Landing {
            maps: self.maps.clone(),
            create: format!(
                "CREATE TEMP TABLE pgrung_rows ({}) ON COMMIT DROP",
                raw.join(", ")
            ),
            insert: format!(
                "{} SELECT {} FROM {RAW} {ROW}",
                into.insert_into(),
                values.join(", ")
            ),
            reads: self
                .feeds
                .iter()
                .map(|feed| {
                    let read = format!(
                        "SELECT {} IS NULL FROM {RAW} {ROW}",
                        with_sources(&feed.sql)
                    );
                    (feed.column.name.clone(), read)
                })
                .collect(),
            into,
            json: self.json.clone(),
        }
    }

    /// The field or the expression that fills the column of this number (0-based), as it is written.
    pub fn origin(&self, column: usize) -> &str {
        self.feeds.get(column).map_or("", |feed| &feed.origin)
    }

    /// Whether an expression asks where a record came from.
    pub fn asks_for_place(&self) -> bool {
        self.uses_order || self.uses_line
    }
}

impl Landing {
    /// The columns of the temporary table that hold `fields` fields, then the stamp's.
    pub(super) fn raw_columns(target: &Target) -> String {
        let fields = (0..target.inputs().len()).map(raw_name);
        let stamps = target.stamp.map_or(&[][..], Stamp::columns).iter();
        let all = fields.chain(stamps.map(|(name, _)| quote_name(name)));
        all.collect::<Vec<_>>().join(", ")
    }
}

/// The columns that `maps` name.
///
/// # Errors
/// When the table does not have one, or it is named twice.
pub fn mapped(maps: &[Map], table: &Table) -> Result<Vec<Column>, MapError> {
    let names: Vec<String> = maps.iter().map(|map| map.column.clone()).collect();
    table.pick(&names).map_err(|error| match error {
        TableError::UnknownColumn { column, near, .. } => {
            let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            let message = format!("{} has no such column{near}", table.quoted());
            MapError::Expression { column, message }
        }
        TableError::Twice(column) => MapError::Expression {
            column,
            message: "the column is mapped twice".to_string(),
        },
        error => error.into(),
    })
}

fn wrong(column: &Column, error: &ExpressionError) -> MapError {
    MapError::Expression {
        column: column.name.clone(),
        message: error.to_string(),
    }
}

/// Whether the server says it of what it was asked, and not of itself; see its `errcodes.txt`.
fn is_of_expression(error: &tokio_postgres::Error) -> bool {
    let of_itself = ["25", "40", "53", "55", "57", "58"];
    let code = error.code().map(SqlState::code);
    code.is_some_and(|code| !of_itself.iter().any(|class| code.starts_with(class)))
}

/// No name that an expression could mean by chance.
fn raw_name(index: usize) -> String {
    format!("\"pgrung.{}\"", index + 1)
}

fn field(index: usize) -> String {
    format!("{ROW}.{}", raw_name(index))
}

fn stamp(name: &str) -> String {
    format!("{ROW}.{}", quote_name(name))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

/// SQL that reads a text as COPY reads a field of the column.
fn read_text(column: &Column, text: &str) -> String {
    match column {
        // A query that names nothing of the row would be run once for all of them.
        _ if column.is_modified || column.has_text_cast => column.read_from(&format!(
            "pg_catalog.json_build_object('v', {text}, 'of', {ROW}.tableoid)"
        )),
        _ => format!("{text}::{}", column.base_type_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_a_column_and_an_expression() {
        let map = |text: &str| {
            let Map { column, expression } = text.parse().unwrap();
            (column, expression)
        };
        let pair = |column: &str, expression: &str| (column.to_string(), expression.to_string());
        assert_eq!(map("a = :value = 'x'"), pair("a", ":value = 'x'"));
        assert_eq!(map(" \"a = \"\"b\" =1"), pair("a = \"b", "1"));
        for bad in ["a", "a =", "= 1", "\"a = 1", "\"a\" 1", ""] {
            assert!(bad.parse::<Map>().is_err(), "{bad}");
        }
    }
}
