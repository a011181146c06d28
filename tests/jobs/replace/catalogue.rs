//! What the catalogue says of all that users have made in a database.

use crate::support::Database;

/// Each catalogue, and which of its rows are not the server's own; see `FirstNormalObjectId` in
/// transam.h.
const CATALOGUES: [(&str, &str); 24] = [
    ("pg_class", "oid >= 16384"),
    ("pg_attribute", "attrelid >= 16384"),
    ("pg_attrdef", "true"),
    ("pg_constraint", "oid >= 16384"),
    ("pg_index", "indexrelid >= 16384"),
    ("pg_trigger", "true"),
    ("pg_policy", "true"),
    ("pg_rewrite", "oid >= 16384"),
    ("pg_depend", "objid >= 16384"),
    (
        "pg_shdepend",
        "dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    ),
    ("pg_description", "objoid >= 16384"),
    ("pg_publication", "true"),
    ("pg_publication_rel", "true"),
    ("pg_publication_namespace", "true"),
    ("pg_statistic_ext", "true"),
    ("pg_inherits", "true"),
    ("pg_partitioned_table", "true"),
    ("pg_seclabel", "true"),
    ("pg_sequence", "true"),
    ("pg_type", "oid >= 16384"),
    ("pg_namespace", "oid >= 16384"),
    ("pg_proc", "oid >= 16384"),
    ("pg_enum", "true"),
    ("pg_default_acl", "true"),
];

/// What tells of a table's storage, its age and its size.
const OF_STORAGE: &str =
    "{relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid,relfilenode}";

/// A row a line, with the name of its catalogue.
pub fn catalogue(database: &Database) -> Vec<String> {
    let rows = CATALOGUES.map(|(name, users)| {
        let row = match name {
            "pg_class" => format!("(to_jsonb(c) - '{OF_STORAGE}'::text[])::text"),
            _ => "c::text".to_owned(),
        };
        format!("SELECT '{name} ' || {row} AS row FROM pg_catalog.{name} c WHERE {users}")
    });
    database.lines(&format!(
        "SELECT row FROM ({}) c ORDER BY row COLLATE \"C\"",
        rows.join(" UNION ALL ")
    ))
}

/// The lines that are only in one of the two, marked.
pub fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let only = |mark: &str, these: &[String], those: &[String]| {
        let lines = these
            .iter()
            .filter(|line| those.binary_search(line).is_err());
        lines
            .map(|line| format!("{mark} {line}"))
            .collect::<Vec<_>>()
    };
    [only("-", before, after), only("+", after, before)].concat()
}
