//! SQL of the user's that runs in a transaction of the ledger.

use tokio_postgres::Transaction;

use super::error::LedgerError;

/// Runs `statements`, given by `flag`, in the transaction. In a block of PL/pgSQL, which refuses to
/// end the transaction around it.
///
/// # Errors
/// What the server says.
pub async fn run_sql(
    transaction: &Transaction<'_>,
    flag: &'static str,
    statements: &[String],
) -> Result<(), LedgerError> {
    for sql in statements {
        let tag = format!("$pgrung{:x}$", fastrand::u64(..));
        let block = tag.replacen("pgrung", "block", 1);
        let run = format!("DO LANGUAGE plpgsql {block} BEGIN EXECUTE {tag}{sql}{tag}; END {block}");
        let ran = transaction.batch_execute(&run).await;
        ran.map_err(|error| LedgerError::Sql { flag, error })?;
    }
    Ok(())
}
