//! Reads the ledger back: imports, how far they are, what was put aside.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::error::{LedgerError, refused};
use super::unsigned;

/// Times in UTC, as to_char writes them.
const RFC_3339: &str = "YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"";

/// One import as `pgrung status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ImportStatus {
    pub import_id: String,
    /// Schema and table, quoted.
    pub table: String,
    /// What the table was to hold.
    pub mode: String,
    /// What must not run twice at a time.
    pub job: Option<String>,
    pub state: &'static str,
    pub runs: i64,
    /// When the first run began.
    pub started_at: String,
    /// When the latest run began.
    pub run_at: String,
    /// When it was finished.
    pub finished_at: Option<String>,
    /// Rows in the table.
    pub loaded: u64,
    /// Rows that wait to be merged into it.
    pub staged: u64,
    /// The table in which they wait, quoted.
    pub staging: Option<String>,
    /// What became of the records, once they were merged: numbers by outcome, and `deleted`.
    pub merged: Option<Value>,
    pub rejected: u64,
    /// Rejects that are not replayed yet.
    pub rejects_open: u64,
    /// The first of them in the order of the sources.
    pub first_reject: Option<FirstReject>,
    /// Rows loaded a second from the first run's start to the latest commit or finish; `null`
    /// while unknown.
    pub rows_per_second: Option<f64>,
    pub sources: Vec<SourceStatus>,
}

/// One source of an import.
#[derive(Debug, Clone, Serialize)]
pub struct SourceStatus {
    pub name: String,
    /// Whether it was read to its end.
    pub finished: bool,
    /// Bytes of the uncompressed source that are committed.
    pub bytes: u64,
    /// Committed spans; more than one means gaps between them.
    pub spans: u64,
    /// Byte ranges between committed spans.
    pub gaps: Vec<(u64, u64)>,
}

/// Why a record was put aside.
#[derive(Debug, Clone, Serialize)]
pub struct FirstReject {
    pub source: String,
    /// Number of the record (1-based).
    pub record: u64,
    /// Number of its first line (1-based).
    pub line: u64,
    pub sqlstate: String,
    pub column: Option<String>,
    pub message: String,
}

impl fmt::Display for FirstReject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FirstReject {
            source,
            record,
            line,
            sqlstate,
            column,
            message,
        } = self;
        write!(f, "{source}, record {record}, line {line}: {sqlstate}")?;
        if let Some(column) = column {
            write!(f, " in \"{column}\"")?;
        }
        write!(f, ": {message}")
    }
}

/// Which imports are told of: those of which all that is given is true.
#[derive(Debug, Clone, Default)]
pub struct StatusFilter {
    pub import_id: Option<String>,
    pub job: Option<String>,
    /// As SQL names it.
    pub table: Option<String>,
    /// How long ago the latest run began at most.
    pub since: Option<Duration>,
}

/// The imports of `filter`, unfinished ones before the others, the latest run first.
pub async fn status(
    client: &Client,
    filter: &StatusFilter,
) -> Result<Vec<ImportStatus>, LedgerError> {
    let since = filter.since.map(|since| since.as_secs_f64());
    let refused = refused("reading the ledger");
    let rows = client
        .query_typed(
            "WITH all_spans AS (SELECT * FROM pgrung.spans UNION ALL SELECT * FROM pgrung.unlogged_spans),
                  all_rejects AS (SELECT * FROM pgrung.rejects UNION ALL SELECT * FROM pgrung.unlogged_rejects)
             SELECT i.import_id, coalesce(g.target, i.target) AS target, i.mode, i.job, i.merged, g.staging,
                    i.replaced_at IS NOT NULL AS replaced, i.epoch AS runs, to_char(i.started_at AT TIME ZONE 'UTC', $2) AS started_at,
                    to_char(i.run_at AT TIME ZONE 'UTC', $2) AS run_at, to_char(i.finished_at AT TIME ZONE 'UTC', $2) AS finished_at,
                    f.*,
                    (SELECT coalesce(sum(loaded), 0)::bigint FROM all_spans p WHERE p.import_id = i.import_id) AS loaded,
                    (SELECT count(*) FROM all_rejects r WHERE r.import_id = i.import_id) AS rejected,
                    (SELECT count(*) FROM all_rejects r WHERE r.import_id = i.import_id AND r.replayed_at IS NULL) AS rejects_open,
                    extract(epoch FROM i.finished_at - i.started_at)::float8 AS seconds
             FROM pgrung.imports i
             LEFT JOIN pgrung.stagings g USING (import_id)
             LEFT JOIN LATERAL (
                 SELECT s.name, r.record, r.line, r.sqlstate, r.column_name, r.message
                 FROM all_rejects r JOIN pgrung.sources s USING (import_id, source)
                 WHERE r.import_id = i.import_id AND r.replayed_at IS NULL
                 ORDER BY r.source, r.start_byte LIMIT 1
             ) f ON true
             WHERE ($1::text IS NULL OR i.import_id = $1) AND ($3::text IS NULL OR i.job = $3)
               AND ($4::text IS NULL OR coalesce(g.target_oid, i.target_oid) = to_regclass($4)
                    OR coalesce(g.target, i.target) = $4)
               AND ($5::float8 IS NULL OR i.run_at > now() - make_interval(secs => $5))
             ORDER BY i.finished_at IS NOT NULL, i.run_at DESC",
            &[
                (&filter.import_id, Type::TEXT),
                (&RFC_3339, Type::TEXT),
                (&filter.job, Type::TEXT),
                (&filter.table, Type::TEXT),
                (&since, Type::FLOAT8),
            ],
        )
        .await
        .map_err(refused)?;
    let mut imports = Vec::new();
    for row in rows {
        imports.push(import(client, &row).await.map_err(refused)?);
    }
    Ok(imports)
}

/// One import of the query.
async fn import(client: &Client, row: &Row) -> Result<ImportStatus, tokio_postgres::Error> {
    let import_id: String = row.get("import_id");
    let merged: Option<Value> = row.get("merged");
    let staging: Option<String> = row.get("staging");
    let stored = unsigned(row.get("loaded"));
    let count = |name| {
        merged
            .as_ref()
            .and_then(|merged| merged.get(name)?.as_u64())
    };
    let (loaded, staged) = match (&merged, &staging) {
        (Some(_), _) => (
            count("inserted").unwrap_or(0) + count("updated").unwrap_or(0),
            0,
        ),
        (None, Some(_)) => (0, stored),
        (None, None) => (stored, 0),
    };
    let finished_at: Option<String> = row.get("finished_at");
    let seconds: Option<f64> = row.get("seconds");
    Ok(ImportStatus {
        sources: sources(client, &import_id).await?,
        import_id,
        table: row.get("target"),
        mode: row.get("mode"),
        job: row.get("job"),
        state: match (&finished_at, row.get("replaced")) {
            (_, true) => "replaced",
            (Some(_), false) => "finished",
            (None, false) => "unfinished",
        },
        runs: row.get("runs"),
        started_at: row.get("started_at"),
        run_at: row.get("run_at"),
        finished_at,
        loaded,
        staged,
        staging,
        merged,
        rejected: unsigned(row.get("rejected")),
        rejects_open: unsigned(row.get("rejects_open")),
        first_reject: first_reject(row),
        rows_per_second: seconds
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| loaded as f64 / seconds),
    })
}

fn first_reject(row: &Row) -> Option<FirstReject> {
    Some(FirstReject {
        source: row.get::<_, Option<String>>("name")?,
        record: unsigned(row.get("record")),
        line: unsigned(row.get("line")),
        sqlstate: row.get("sqlstate"),
        column: row.get("column_name"),
        message: row.get("message"),
    })
}

async fn sources(
    client: &Client,
    import_id: &str,
) -> Result<Vec<SourceStatus>, tokio_postgres::Error> {
    let rows = client
        .query_typed(
            "SELECT s.source, s.name, s.finished_at IS NOT NULL AS finished, s.bytes, p.start_byte, p.end_byte
             FROM pgrung.sources s
             LEFT JOIN (SELECT * FROM pgrung.spans UNION ALL SELECT * FROM pgrung.unlogged_spans) p
                    ON p.import_id = s.import_id AND p.source = s.source
             WHERE s.import_id = $1 ORDER BY s.source, p.start_byte",
            &[(&import_id, Type::TEXT)],
        )
        .await?;
    let mut sources: Vec<SourceStatus> = Vec::new();
    let (mut number, mut end) = (None, 0);
    for row in rows {
        let source: i32 = row.get("source");
        if number != Some(source) {
            number = Some(source);
            sources.push(SourceStatus {
                name: row.get("name"),
                finished: row.get("finished"),
                bytes: row.get::<_, Option<i64>>("bytes").map_or(0, unsigned),
                spans: 0,
                gaps: Vec::new(),
            });
            end = 0;
        }
        let Some(source) = sources.last_mut() else {
            continue;
        };
        let range = row
            .get::<_, Option<i64>>("start_byte")
            .zip(row.get::<_, Option<i64>>("end_byte"));
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
