//! Brings the ledger's tables up to date with the numbered SQL of `migrations/`.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::LedgerError;
use crate::server_error;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Where the migration library notes what it did.
const HISTORY: &str = "pgrung.migrations";

/// Keeps two runs from migrating at once; any number that nobody else uses.
const LOCK: i64 = 0x7067_7275_6e67;

/// Runs the migrations that are missing; returns their names.
///
/// # Errors
/// When the role may not create the tables, or the ledger is newer than this program.
pub async fn migrate(client: &mut Client) -> Result<Vec<String>, LedgerError> {
    // The lock belongs to the session: the library runs transactions of its own.
    let lock = format!("SELECT pg_advisory_lock({LOCK})");
    client.batch_execute(&lock).await.map_err(refused)?;
    let result = run(client).await;
    let unlock = format!("SELECT pg_advisory_unlock({LOCK})");
    client.batch_execute(&unlock).await.map_err(refused)?;
    result
}

async fn run(client: &mut Client) -> Result<Vec<String>, LedgerError> {
    // The one statement outside migrations/: the library's own table needs a schema first.
    let exists = client
        .query_one("SELECT to_regnamespace('pgrung') IS NOT NULL AS found", &[])
        .await
        .map_err(refused)?;
    if !exists.get::<_, bool>("found") {
        client
            .batch_execute("CREATE SCHEMA pgrung")
            .await
            .map_err(refused)?;
    }
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    let report = runner.run_async(client).await.map_err(|error| {
        LedgerError::Unusable(format!(
            "migrating the ledger: {}",
            server_error::chain(&error)
        ))
    })?;
    Ok(report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect())
}

/// Makes sure that the ledger is there and of this version; creates or updates it if need be.
///
/// # Errors
/// When it is not and this role may not change that, or when it is newer.
pub async fn require(client: &mut Client) -> Result<(), LedgerError> {
    let latest = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0);
    let found = version(client).await?;
    if found > i64::from(latest) {
        return Err(LedgerError::Unusable(format!(
            "the ledger in schema pgrung is of version {found}, this pgrung knows {latest}: use a newer pgrung"
        )));
    }
    if found < i64::from(latest) {
        migrate(client).await?;
    }
    Ok(())
}

/// The newest migration that the database has; 0 without a ledger.
async fn version(client: &Client) -> Result<i64, LedgerError> {
    let found = client
        .query_one("SELECT to_regclass($1) IS NOT NULL AS found", &[&HISTORY])
        .await
        .map_err(refused)?;
    if !found.get::<_, bool>("found") {
        return Ok(0);
    }
    let sql = format!("SELECT coalesce(max(version), 0)::bigint AS version FROM {HISTORY}");
    Ok(client
        .query_one(&sql, &[])
        .await
        .map_err(refused)?
        .get("version"))
}

fn refused(error: tokio_postgres::Error) -> LedgerError {
    if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return LedgerError::Unusable(format!(
            "this role may not use or create the ledger in schema pgrung ({}): run `pgrung migrate` once as a role \
             that may, and grant this one USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables; \
             or load with --no-ledger",
            server_error::describe(&error)
        ));
    }
    LedgerError::Server {
        doing: "preparing the ledger",
        error,
    }
}
