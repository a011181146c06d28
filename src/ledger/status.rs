//! Reads the ledger back: imports, how far they are, what was put aside.

use serde::Serialize;
use tokio_postgres::Client;

use super::unsigned;
use crate::error::Error;

/// One import as `pgrung status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ImportStatus {
    /// The import.
    pub import_id: String,
    /// Schema and table, quoted.
    pub table: String,
    /// `finished`, `unfinished`.
    pub state: &'static str,
    /// Runs so far.
    pub runs: i64,
    /// When the first run began.
    pub started_at: String,
    /// When the latest run began.
    pub run_at: String,
    /// When it was finished.
    pub finished_at: Option<String>,
    /// Rows in the table.
    pub loaded: u64,
    /// Records put aside.
    pub rejected: u64,
    /// Rejects that are not replayed yet.
    pub rejects_open: u64,
    /// Rows loaded a second from the first run's start to the latest commit or finish; `null`
    /// while unknown.
    pub rows_per_second: Option<f64>,
    /// Its sources.
    pub sources: Vec<SourceStatus>,
}

/// One source of an import.
#[derive(Debug, Clone, Serialize)]
pub struct SourceStatus {
    /// The source.
    pub name: String,
    /// Whether it was read to its end.
    pub finished: bool,
    /// Bytes of the uncompressed source that are committed.
    pub bytes: u64,
    /// Committed stretches; more than one means gaps between them.
    pub spans: u64,
    /// Byte ranges between committed stretches.
    pub gaps: Vec<(u64, u64)>,
}

/// All imports, latest run first; only one if it is named.
///
/// # Errors
/// What the server says.
pub async fn status(client: &Client, import_id: Option<&str>) -> Result<Vec<ImportStatus>, Error> {
    let refused = |error| Error::Server {
        doing: "reading the ledger",
        error,
    };
    let rows = client
        .query(
            "WITH all_spans AS (SELECT * FROM pgrung.spans UNION ALL SELECT * FROM pgrung.unlogged_spans),
                  all_rejects AS (SELECT * FROM pgrung.rejects UNION ALL SELECT * FROM pgrung.unlogged_rejects)
             SELECT i.import_id, i.target, i.finished_at IS NOT NULL, i.epoch,
                    i.started_at::timestamptz(0)::text, i.run_at::timestamptz(0)::text, i.finished_at::timestamptz(0)::text,
                    (SELECT coalesce(sum(loaded), 0)::bigint FROM all_spans p WHERE p.import_id = i.import_id),
                    (SELECT count(*) FROM all_rejects r WHERE r.import_id = i.import_id),
                    (SELECT count(*) FROM all_rejects r WHERE r.import_id = i.import_id AND r.replayed_at IS NULL),
                    extract(epoch FROM i.finished_at - i.started_at)::float8
             FROM pgrung.imports i WHERE $1::text IS NULL OR i.import_id = $1
             ORDER BY i.run_at DESC",
            &[&import_id],
        )
        .await
        .map_err(refused)?;
    let mut imports = Vec::new();
    for row in rows {
        let import_id: String = row.get(0);
        let loaded = unsigned(row.get(7));
        let seconds: Option<f64> = row.get(10);
        imports.push(ImportStatus {
            sources: sources(client, &import_id).await.map_err(refused)?,
            import_id,
            table: row.get(1),
            state: if row.get(2) { "finished" } else { "unfinished" },
            runs: row.get(3),
            started_at: row.get(4),
            run_at: row.get(5),
            finished_at: row.get(6),
            loaded,
            rejected: unsigned(row.get(8)),
            rejects_open: unsigned(row.get(9)),
            rows_per_second: seconds
                .filter(|seconds| *seconds > 0.0)
                .map(|seconds| loaded as f64 / seconds),
        });
    }
    Ok(imports)
}

async fn sources(
    client: &Client,
    import_id: &str,
) -> Result<Vec<SourceStatus>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT s.name, s.finished_at IS NOT NULL, p.start_byte, p.end_byte
             FROM pgrung.sources s
             LEFT JOIN (SELECT * FROM pgrung.spans UNION ALL SELECT * FROM pgrung.unlogged_spans) p
                    ON p.import_id = s.import_id AND p.source = s.source
             WHERE s.import_id = $1 ORDER BY s.source, p.start_byte",
            &[&import_id],
        )
        .await?;
    let mut sources: Vec<SourceStatus> = Vec::new();
    let mut end = 0;
    for row in rows {
        let name: String = row.get(0);
        if sources.last().is_none_or(|source| source.name != name) {
            sources.push(SourceStatus {
                name,
                finished: row.get(1),
                bytes: 0,
                spans: 0,
                gaps: Vec::new(),
            });
            end = 0;
        }
        let Some(source) = sources.last_mut() else {
            continue;
        };
        let range = row
            .get::<_, Option<i64>>(2)
            .zip(row.get::<_, Option<i64>>(3));
        if let Some((from, to)) = range {
            let (from, to) = (unsigned(from), unsigned(to));
            if source.spans > 0 && from > end {
                source.gaps.push((end, from));
            }
            source.spans += 1;
            source.bytes += to - from;
            end = to;
        }
    }
    Ok(sources)
}
