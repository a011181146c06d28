//! Where the rows of a table are: which table a name means now, and which storage it has.

use tokio_postgres::GenericClient;
use tokio_postgres::types::{Oid, Type};

use super::Table;

/// A table as it stands in the catalog at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Schema and name, quoted.
    pub name: String,
    pub oid: Oid,
    /// Its storage, or that of all its partitions: TRUNCATE makes it another one, and so do rewrites
    /// that keep the rows (VACUUM FULL, CLUSTER). `None` for a foreign table, and for partitions that
    /// may have come and gone for good reasons, as between two runs.
    pub filenode: Option<Oid>,
    /// Whether a server crash empties it.
    pub unlogged: bool,
}

/// The storage of relation `c`. Of a partitioned table it is a number made from its partitions'.
const FILENODE: &str = "
    CASE WHEN c.relkind <> 'p' THEN nullif(pg_relation_filenode(c.oid), 0)
         ELSE (SELECT ('x' || left(md5(string_agg(p.relid::oid || ' ' || pg_relation_filenode(p.relid), ',' ORDER BY p.relid)), 8))::bit(32)::bigint::oid
               FROM pg_partition_tree(c.oid) p WHERE p.isleaf)
    END";

impl Place {
    /// What `name`, schema and table quoted, means now; `None`: nothing.
    pub async fn find(
        client: &impl GenericClient,
        name: &str,
    ) -> Result<Option<Self>, tokio_postgres::Error> {
        let sql = format!(
            "SELECT c.oid, {FILENODE} AS filenode, c.relpersistence::text = 'u' AS unlogged
             FROM pg_class c WHERE c.oid = to_regclass($1)"
        );
        let row = client.query_typed_opt(&sql, &[(&name, Type::TEXT)]).await?;
        Ok(row.map(|row| Place {
            name: name.to_string(),
            oid: row.get("oid"),
            filenode: row.get("filenode"),
            unlogged: row.get("unlogged"),
        }))
    }
}

impl From<&Table> for Place {
    fn from(table: &Table) -> Self {
        Place {
            name: table.quoted(),
            oid: table.oid,
            filenode: table.filenode,
            unlogged: table.unlogged,
        }
    }
}
