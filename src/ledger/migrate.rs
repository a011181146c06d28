//! Brings the ledger's tables up to date with the numbered SQL of `migrations/`.

use refinery::Migration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::error::LedgerError;
use crate::server_error;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Where it is noted what is done, in the form of the library that embeds the migrations.
const HISTORY: &str = "pgrung.migrations";

/// Keeps two runs from migrating at once; any number that nobody else uses.
const LOCK: i64 = 0x7067_7275_6e67;

/// Runs the migrations that are missing, all or none; returns their names.
///
/// # Errors
/// When the role may not create the tables, or the ledger is not what this program's migrations
/// make.
pub async fn migrate(client: &mut Client) -> Result<Vec<String>, LedgerError> {
    let transaction = client.transaction().await.map_err(refused)?;
    // Of the transaction: behind a pooler a lock of the session would stay on a connection that
    // others get next.
    let lock = format!("SELECT pg_advisory_xact_lock({LOCK})");
    transaction.batch_execute(&lock).await.map_err(refused)?;
    let applied = run(&transaction).await?;
    transaction.commit().await.map_err(refused)?;
    Ok(applied)
}

async fn run(transaction: &Transaction<'_>) -> Result<Vec<String>, LedgerError> {
    create_history(transaction).await.map_err(refused)?;
    let known = format!("SELECT version, checksum FROM {HISTORY}");
    let known = transaction.query(&known, &[]).await.map_err(refused)?;
    let insert = format!(
        "INSERT INTO {HISTORY} (version, name, applied_on, checksum)
         VALUES ($1, $2, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), $3)"
    );
    let mut applied = Vec::new();
    let mut migrations = embedded::migrations::runner().get_migrations().clone();
    migrations.sort_by_key(Migration::version);
    for migration in &migrations {
        let (version, checksum) = (migration.version(), migration.checksum().to_string());
        let there = known
            .iter()
            .find(|row| row.get::<_, i32>("version") == version);
        if let Some(row) = there {
            if row.get::<_, &str>("checksum") != checksum {
                return Err(LedgerError::Unusable(format!(
                    "migrating the ledger: {migration} is not the one that made the ledger in schema pgrung: another pgrung made it"
                )));
            }
            continue;
        }
        let sql = migration.sql().unwrap_or_default();
        transaction.batch_execute(sql).await.map_err(refused)?;
        transaction
            .execute(&insert, &[&version, &migration.name(), &checksum])
            .await
            .map_err(refused)?;
        applied.push(migration.to_string());
    }
    Ok(applied)
}

/// Makes the schema, and in it the table that says which migrations are done.
async fn create_history(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    // IF NOT EXISTS asks for the right to create also where nothing is created.
    let missing =
        "SELECT to_regnamespace('pgrung') IS NULL AS schema, to_regclass($1) IS NULL AS history";
    let missing = transaction.query_one(missing, &[&HISTORY]).await?;
    if missing.get("schema") {
        transaction.batch_execute("CREATE SCHEMA pgrung").await?;
    }
    if missing.get("history") {
        let sql = format!(
            "CREATE TABLE {HISTORY} (version int4 PRIMARY KEY, name varchar(255),
                                     applied_on varchar(255), checksum varchar(255))"
        );
        transaction.batch_execute(&sql).await?;
    }
    Ok(())
}

/// Makes sure that the ledger is there and of this version; creates or updates it if need be.
///
/// # Errors
/// When it is not and this role may not change that, or when it is newer.
pub async fn require(client: &mut Client) -> Result<(), LedgerError> {
    let latest = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(Migration::version)
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
        .query_typed_one(
            "SELECT to_regclass($1) IS NOT NULL AS found",
            &[(&HISTORY, Type::TEXT)],
        )
        .await
        .map_err(refused)?;
    if !found.get::<_, bool>("found") {
        return Ok(0);
    }
    let sql = format!("SELECT coalesce(max(version), 0)::bigint AS version FROM {HISTORY}");
    Ok(client
        .query_typed_one(&sql, &[])
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
