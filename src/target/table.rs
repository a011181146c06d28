//! Looks up the target table in the catalog and picks the columns a load writes.

mod error;

use tokio_postgres::types::{Kind, Oid, Type};
use tokio_postgres::{Client, Row};

pub use error::TableError;

use super::near::nearest;
use super::quote_name;
use crate::encode::Encoder;
use crate::server_error::one_line;

/// A table as the catalog describes it.
#[derive(Debug, Clone)]
pub struct Table {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    /// Whether a server crash empties it.
    pub unlogged: bool,
    /// Storage of the table; TRUNCATE and rewrites change it. `None` for a partitioned or foreign
    /// table.
    pub filenode: Option<Oid>,
    /// Whether a constraint or trigger may put its check off until COMMIT.
    pub deferrable: bool,
    /// Whether a BEFORE trigger may quietly keep rows out of the table.
    pub suppresses: bool,
    /// Whether a row may need others of its batch: it refers to its own table, or a trigger may
    /// make what it refers to.
    pub rows_need_each_other: bool,
    /// Whether policies restrict rows; COPY does not take such tables.
    pub row_security: bool,
    /// All columns in their order, generated ones included.
    pub columns: Vec<Column>,
}

/// A column as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name, unquoted.
    pub name: String,
    /// Whether a name of another case can mean it: no other column differs from it in case only.
    pub any_case: bool,
    /// The type behind any domains.
    pub base_type: Oid,
    /// SQL name of that type, quoted and qualified where needed, without modifiers.
    pub base_type_name: String,
    /// The same with the modifier that the column or its domain gives, if any.
    pub modified_type_name: String,
    /// Whether there is such a modifier: the type's input function is told, and may read the same
    /// text as another value (`interval year`).
    pub is_modified: bool,
    /// Whether a cast from text is something else than the type's input function (regclass, and
    /// what users create).
    pub has_text_cast: bool,
    /// Whether the type is a domain.
    pub is_domain: bool,
    /// Array type of the base type, 0 if it has none.
    pub array_type: Oid,
    /// Whether the base type is itself an array.
    pub is_array: bool,
    /// Whether the binary form of a value is its text: enums, and types that are text under another
    /// name, as citext.
    pub is_text: bool,
    /// Whether a row that leaves the column out gets something other than NULL.
    pub has_default: bool,
    /// GENERATED ALWAYS AS IDENTITY: INSERT must override it, COPY need not.
    pub identity_always: bool,
    /// GENERATED ALWAYS AS (expression): never written.
    pub generated: bool,
}

impl Column {
    /// A column of the plain type that is written so and has this array type.
    pub(super) fn raw(name: &str, ty: &str, array: Type, any_case: bool) -> Self {
        let base_type = match array.kind() {
            Kind::Array(element) => element.oid(),
            _ => 0,
        };
        Column {
            name: name.to_string(),
            any_case,
            base_type,
            base_type_name: ty.to_string(),
            modified_type_name: ty.to_string(),
            is_modified: false,
            has_text_cast: false,
            is_domain: false,
            array_type: array.oid(),
            is_array: false,
            is_text: false,
            has_default: false,
            identity_always: false,
            generated: false,
        }
    }

    /// The encoder of the column's type; `None`: its values go as text.
    pub fn encoder(&self) -> Option<Encoder> {
        // The oids of such types are the database's own.
        if self.is_text {
            Some(Encoder::Text)
        } else {
            Encoder::for_type(self.base_type)
        }
    }

    /// SQL that reads `json`, an object with the value's text as `v`, by the type's input function
    /// with its modifier, as COPY reads a field. A parameter of the column's type is read without
    /// the modifier, a cast from text by whatever function the cast has. (The server:
    /// `populate_scalar` in jsonfuncs.c.)
    pub(crate) fn read_from(&self, json: &str) -> String {
        let ty = &self.modified_type_name;
        format!("(SELECT v FROM pg_catalog.json_to_record({json}) AS r (v {ty}))")
    }

    fn lower(&self) -> String {
        self.name.to_lowercase()
    }

    /// Whether the column takes JSON.
    pub fn is_json(&self) -> bool {
        matches!(self.base_type_name.as_str(), "json" | "jsonb")
    }
}

const RELATION: &str = "
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       c.relpersistence::text = 'u' AS unlogged, nullif(pg_relation_filenode(c.oid), 0) AS filenode,
       EXISTS (SELECT FROM pg_trigger t
               WHERE t.tgdeferrable
                 AND t.tgrelid IN (SELECT c.oid UNION ALL SELECT relid FROM pg_partition_tree(c.oid)))
         AS deferrable,
       EXISTS (SELECT FROM pg_trigger t
               -- Row (1), before (2), insert (4); see pg_trigger.h.
               WHERE t.tgtype & 7 = 7 AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                 AND t.tgrelid IN (SELECT c.oid UNION ALL SELECT relid FROM pg_partition_tree(c.oid)))
         AS suppresses,
       -- The first rule that rewrites an INSERT of this session; see matchLocks in rewriteHandler.c.
       (SELECT min(r.rulename)::text FROM pg_rewrite r
        WHERE r.ev_class = c.oid AND r.ev_type = '3'
          AND (r.ev_enabled = 'A' OR (r.ev_enabled = 'R') = (current_setting('session_replication_role') = 'replica')
               AND r.ev_enabled <> 'D')) AS rule,
       EXISTS (SELECT FROM pg_trigger t
               WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
                 AND t.tgrelid IN (SELECT c.oid UNION ALL SELECT relid FROM pg_partition_tree(c.oid)))
         OR EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f'
                 AND f.conrelid IN (SELECT c.oid UNION ALL SELECT relid FROM pg_partition_tree(c.oid))
                 AND f.confrelid IN (SELECT c.oid UNION ALL SELECT relid FROM pg_partition_tree(c.oid)))
         AS rows_need_each_other,
       c.relrowsecurity AS row_security
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $1";

const COLUMNS: &str = "
WITH RECURSIVE base (attnum, typid, typmod) AS (
    SELECT attnum, atttypid, atttypmod FROM pg_attribute
    WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
  UNION ALL
    SELECT base.attnum, t.typbasetype, t.typtypmod
    FROM base JOIN pg_type t ON t.oid = base.typid AND t.typtype = 'd'
)
SELECT a.attname AS name, t.oid AS base_type, format_type(t.oid, -1) AS base_type_name,
       format_type(t.oid, base.typmod) AS modified_type_name, base.typmod <> -1 AS is_modified,
       EXISTS (SELECT FROM pg_cast c
               -- Not by the input and output functions.
               WHERE c.castsource = 'pg_catalog.text'::regtype AND c.casttarget = t.oid AND c.castmethod <> 'i')
         AS has_text_cast,
       d.typtype = 'd' AS is_domain, t.typarray AS array_type, t.typcategory::text = 'A' AS is_array,
       t.typtype = 'e' OR base.typmod = -1 AND EXISTS
              (SELECT FROM pg_proc i, pg_proc r, pg_language l
               WHERE i.oid = t.typinput AND i.prosrc = 'textin' AND i.prolang = l.oid
                 AND r.oid = t.typreceive AND r.prosrc = 'textrecv' AND r.prolang = l.oid
                 AND l.lanname = 'internal') AS is_text,
       a.atthasdef OR a.attidentity <> '' OR d.typdefault IS NOT NULL AS has_default,
       a.attidentity = 'a' AS identity_always, a.attgenerated <> '' AS generated
FROM pg_attribute a
JOIN base ON base.attnum = a.attnum
JOIN pg_type t ON t.oid = base.typid AND t.typtype <> 'd'
JOIN pg_type d ON d.oid = a.atttypid
WHERE a.attrelid = $1
ORDER BY a.attnum";

const BEYOND_LIKE: &str = "
SELECT 1 AS place, 'trigger' AS kind, tgname AS name FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal
UNION ALL SELECT 2, 'foreign key', conname FROM pg_constraint WHERE conrelid = $1 AND contype = 'f'
UNION ALL SELECT 3, 'rule', rulename FROM pg_rewrite WHERE ev_class = $1 AND ev_type <> '1'
UNION ALL SELECT 4, 'row security', NULL FROM pg_class WHERE oid = $1 AND relrowsecurity
UNION ALL SELECT 5, 'its partitions', NULL FROM pg_class WHERE oid = $1 AND relkind = 'p'
UNION ALL SELECT 6, 'that it is foreign', NULL FROM pg_class WHERE oid = $1 AND relkind = 'f'
UNION ALL SELECT 7, 'that it is unlogged', NULL FROM pg_class WHERE oid = $1 AND relpersistence = 'u'
UNION ALL SELECT 8, 'its storage parameters', NULL FROM pg_class WHERE oid = $1 AND reloptions IS NOT NULL
ORDER BY 1, 3";

impl Table {
    /// Finds `name`, written as in SQL: `table` or `schema.table`, folded to lower case unless
    /// quoted. A name that SQL does not know is tried as it is written.
    ///
    /// # Errors
    /// When there is no such table, it is a view or something else, or a rule rewrites what INSERT
    /// does.
    pub async fn find(client: &Client, name: &str) -> Result<Self, TableError> {
        let oid = match by_sql_name(client, name).await? {
            None => by_exact_name(client, name).await?,
            found => found,
        };
        let found = match oid {
            Some(oid) => Self::by_oid(client, oid).await?,
            None => None,
        };
        match found {
            Some(table) => Ok(table),
            None => Err(TableError::Unknown {
                name: name.to_string(),
                near: near_table(client, name).await?,
            }),
        }
    }

    async fn by_oid(client: &Client, oid: Oid) -> Result<Option<Self>, TableError> {
        let Some(row) = client
            .query_typed_opt(RELATION, &[(&oid, Type::OID)])
            .await?
        else {
            return Ok(None);
        };
        let mut table = Table {
            oid: row.get("oid"),
            schema: row.get("schema"),
            name: row.get("name"),
            unlogged: row.get("unlogged"),
            filenode: row.get("filenode"),
            deferrable: row.get("deferrable"),
            suppresses: row.get("suppresses"),
            rows_need_each_other: row.get("rows_need_each_other"),
            row_security: row.get("row_security"),
            columns: Vec::new(),
        };
        let kind = match row.get::<_, &str>("kind") {
            "r" | "f" | "p" => None,
            "v" => Some("a view"),
            "m" => Some("a materialized view"),
            "i" | "I" => Some("an index"),
            "S" => Some("a sequence"),
            "c" => Some("a composite type"),
            _ => Some("not a table"),
        };
        if let Some(kind) = kind {
            return Err(TableError::NotATable {
                name: table.quoted(),
                kind,
            });
        }
        if let Some(rule) = row.get::<_, Option<&str>>("rule") {
            return Err(TableError::Rule {
                table: table.quoted(),
                rule: quote_name(rule),
            });
        }
        table.columns = client
            .query_typed(COLUMNS, &[(&oid, Type::OID)])
            .await?
            .iter()
            .map(|row| Column {
                name: row.get("name"),
                any_case: true,
                base_type: row.get("base_type"),
                base_type_name: row.get("base_type_name"),
                modified_type_name: row.get("modified_type_name"),
                is_modified: row.get("is_modified"),
                has_text_cast: row.get("has_text_cast"),
                is_domain: row.get("is_domain"),
                array_type: row.get("array_type"),
                is_array: row.get("is_array"),
                is_text: row.get("is_text"),
                has_default: row.get("has_default"),
                identity_always: row.get("identity_always"),
                generated: row.get("generated"),
            })
            .collect();
        let names: Vec<String> = table.columns.iter().map(Column::lower).collect();
        for (column, lower) in table.columns.iter_mut().zip(&names) {
            column.any_case = names.iter().filter(|name| *name == lower).count() == 1;
        }
        Ok(Some(table))
    }

    /// Number of its indexes; 0 if it cannot be told.
    pub async fn indexes(&self, client: &Client) -> i64 {
        let sql = "SELECT count(*) AS indexes FROM pg_index WHERE indrelid = $1";
        let row = client.query_typed_one(sql, &[(&self.oid, Type::OID)]).await;
        row.map_or(0, |row| row.get("indexes"))
    }

    /// What bears on a load and is not there in a table made `LIKE` this one `INCLUDING ALL`, in
    /// words.
    ///
    /// # Errors
    /// What the server says.
    pub async fn beyond_like(&self, client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
        let rows = client
            .query_typed(BEYOND_LIKE, &[(&self.oid, Type::OID)])
            .await?;
        let named = |row: &Row| match row.get::<_, Option<&str>>("name") {
            Some(name) => format!("{} {}", row.get::<_, &str>("kind"), quote_name(name)),
            None => row.get("kind"),
        };
        Ok(rows.iter().map(|row| one_line(&named(row))).collect())
    }

    /// Schema and name, quoted.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_name(&self.schema), quote_name(&self.name))
    }

    /// Columns that input without names fills: all but the generated ones.
    pub fn writable(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.generated)
    }

    /// The columns that `names` mean, in their order. A name that no column has as it is written
    /// is matched without regard to case if only one column fits.
    ///
    /// # Errors
    /// When a name is unknown, given twice, or means a generated column.
    pub fn pick(&self, names: &[String]) -> Result<Vec<Column>, TableError> {
        let mut picked: Vec<Column> = Vec::with_capacity(names.len());
        for name in names {
            let column = self.column(name).ok_or_else(|| TableError::UnknownColumn {
                table: self.quoted(),
                column: name.escape_debug().to_string(),
                near: self.near_column(name),
                columns: self
                    .writable()
                    .map(|column| quote_name(&column.name))
                    .collect::<Vec<_>>()
                    .join(", "),
            })?;
            if column.generated {
                return Err(TableError::Generated(column.name.clone()));
            }
            if picked.iter().any(|other| other.name == column.name) {
                return Err(TableError::Twice(column.name.clone()));
            }
            picked.push(column.clone());
        }
        if picked.is_empty() {
            return Err(TableError::NoColumns(self.quoted()));
        }
        Ok(picked)
    }

    fn near_column(&self, name: &str) -> Option<String> {
        let mut columns = self.writable();
        let place = nearest(name, self.writable().map(|column| column.name.as_str()))?;
        columns.nth(place).map(|column| quote_name(&column.name))
    }

    fn column(&self, name: &str) -> Option<&Column> {
        let exact = self.columns.iter().find(|column| column.name == name);
        exact.or_else(|| {
            let lower = name.to_lowercase();
            let mut columns = self.columns.iter();
            columns.find(|column| column.any_case && column.lower() == lower)
        })
    }
}

async fn by_sql_name(client: &Client, name: &str) -> Result<Option<Oid>, TableError> {
    match client
        .query_typed_one("SELECT to_regclass($1)::oid AS oid", &[(&name, Type::TEXT)])
        .await
    {
        Ok(row) => Ok(row.get("oid")),
        // Not a name at all as SQL reads it, such as `a-b`; it may still be one as it stands.
        Err(error) if error.as_db_error().is_some() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The table that a name that no table has probably means, quoted.
async fn near_table(client: &Client, name: &str) -> Result<Option<String>, TableError> {
    let sql = "SELECT n.nspname AS schema, c.relname AS name
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname NOT IN ('pgrung', 'information_schema')
                 AND n.nspname !~ '^pg_' AND has_schema_privilege(n.oid, 'USAGE')
               ORDER BY pg_table_is_visible(c.oid) DESC, 1, 2 LIMIT 10000";
    let rows = client.query_typed(sql, &[]).await?;
    let tables: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row.get("schema"), row.get("name")))
        .collect();
    let qualified: Vec<String> = tables
        .iter()
        .map(|(schema, table)| format!("{schema}.{table}"))
        .collect();
    let in_schema = || nearest(name, qualified.iter().map(String::as_str));
    let bare = |name| nearest(name, tables.iter().map(|(_, table)| *table));
    let near = match name.split_once('.') {
        Some((_, table)) => in_schema().or_else(|| bare(table)),
        None => bare(name),
    };
    Ok(near.map(|place| {
        let (schema, table) = tables[place];
        format!("{}.{}", quote_name(schema), quote_name(table))
    }))
}

async fn by_exact_name(client: &Client, name: &str) -> Result<Option<Oid>, TableError> {
    let quoted = match name.split_once('.') {
        Some((schema, table)) => format!("{}.{}", quote_name(schema), quote_name(table)),
        None => quote_name(name),
    };
    by_sql_name(client, &quoted).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, generated: bool) -> Column {
        Column {
            name: name.to_string(),
            any_case: !name.eq_ignore_ascii_case("name"),
            base_type: 25,
            base_type_name: "text".to_string(),
            modified_type_name: "text".to_string(),
            is_modified: false,
            has_text_cast: false,
            is_domain: false,
            array_type: 1009,
            is_array: false,
            is_text: false,
            has_default: false,
            identity_always: false,
            generated,
        }
    }

    #[test]
    fn names_match_exactly_first_and_then_without_regard_to_case() {
        let table = Table {
            oid: 1,
            schema: "s".to_string(),
            name: "t".to_string(),
            unlogged: false,
            filenode: None,
            deferrable: false,
            suppresses: false,
            rows_need_each_other: false,
            row_security: false,
            columns: vec![
                column("id", false),
                column("Name", false),
                column("NAME", false),
                column("g", true),
            ],
        };
        let pick = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            table.pick(&names).map(|columns| {
                columns
                    .into_iter()
                    .map(|column| column.name)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(pick(&["ID", "NAME"]).unwrap(), ["id", "NAME"]);
        assert!(matches!(
            pick(&["name"]),
            Err(TableError::UnknownColumn { .. })
        ));
        assert!(matches!(pick(&["id", "Id"]), Err(TableError::Twice(_))));
        assert!(matches!(pick(&["g"]), Err(TableError::Generated(_))));
        assert!(matches!(pick(&[]), Err(TableError::NoColumns(_))));
    }
}
