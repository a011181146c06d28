//! What a check looks at before its transaction is rolled back.

use tokio_postgres::Client;

use crate::report::{Lock, Rehearsal};
use crate::target::{Order, Target, quote_name};

/// The locks of this transaction on tables that are the user's, in the words of LOCK TABLE. A read takes
/// ACCESS SHARE, which is in nobody's way.
const LOCKS: &str = "
SELECT DISTINCT l.relation::regclass::text AS name,
       upper(regexp_replace(replace(l.mode, 'Lock', ''), '([a-z])([A-Z])', '\\1 \\2', 'g')) AS mode
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode <> 'AccessShareLock'
  AND c.relkind IN ('r', 'p', 'f', 'm') AND n.nspname NOT IN ('pgrung', 'pg_catalog', 'pg_toast')
  AND c.relpersistence <> 't'
ORDER BY 1, 2";

impl Rehearsal {
    /// Takes an example of each column of `target` from the first of the rows in `staging`.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn look_at_rows(
        &mut self,
        client: &Client,
        staging: &str,
        target: &Target,
    ) -> Result<(), tokio_postgres::Error> {
        let columns = target.inputs().iter();
        let columns = columns.map(|column| format!("{}::text", quote_name(&column.name)));
        let columns: Vec<String> = columns.collect();
        let sql = format!(
            "SELECT ARRAY[{}]::text[] AS example FROM {staging} ORDER BY {} LIMIT 1",
            columns.join(", "),
            quote_name(Order::COLUMN),
        );
        if let Some(row) = client.query_typed_opt(&sql, &[]).await? {
            self.has_examples = true;
            let examples: Vec<Option<String>> = row.get("example");
            for (filled, example) in self.columns.iter_mut().zip(examples) {
                filled.example = example;
            }
        }
        Ok(())
    }

    /// Notes which locks the transaction holds.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn look_at_locks(
        &mut self,
        client: &Client,
    ) -> Result<(), tokio_postgres::Error> {
        let locks = client.query_typed(LOCKS, &[]).await?;
        let locks = locks.iter().map(|row| Lock {
            table: row.get("name"),
            mode: row.get("mode"),
        });
        self.locks = locks.collect();
        Ok(())
    }
}
