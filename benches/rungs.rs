//! Rows a second of every strategy on a private server: each run is one load of the same lineitem
//! rows into a fresh logged table.
//!
//! `pgrung bench` compares more (latencies, WAL, spread); this finds regressions from one commit
//! to the next.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use pgrung::internal::{LINEITEM, write_lineitem};
use pgrung::{
    Client, Commit, ConnectSettings, Control, CopyFormat, Embedded, EmbeddedOptions, Input,
    LedgerUse, LoadSettings, OnError, ProgressMode, StrategyKind, load,
};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Rows of one load; a tenth of them with a commit a row.
const ROWS: usize = 20_000;

/// The rungs: name, share of the rows (1 in this many), strategy, format, commit.
const RUNGS: [(&str, usize, StrategyKind, CopyFormat, Commit); 8] = {
    use StrategyKind::{Copy, Discard, Insert, MultiInsert, Pipeline, Unnest};
    let (auto, batch) = (CopyFormat::Auto, Commit::Batch);
    [
        ("insert, commit a row", 10, Insert, auto, Commit::Row),
        ("insert", 1, Insert, auto, batch),
        ("pipeline", 1, Pipeline, auto, batch),
        ("multi-insert", 1, MultiInsert, auto, batch),
        ("unnest", 1, Unnest, auto, batch),
        ("copy, text", 1, Copy, CopyFormat::Text, batch),
        ("copy", 1, Copy, auto, batch),
        ("discard", 1, Discard, auto, batch),
    ]
};

/// A server, and the connection that makes tables in it.
struct Arena {
    runtime: Runtime,
    client: Client,
    settings: ConnectSettings,
    _server: Embedded,
}

impl Arena {
    fn start() -> Self {
        let server = Embedded::start(EmbeddedOptions::default()).expect("a server starts");
        let settings = ConnectSettings::resolve(Some(&server.dsn()), &|_| None)
            .expect("the server's own DSN is sound");
        let runtime = Runtime::new().expect("the runtime starts");
        let client = runtime
            .block_on(pgrung::connect(&settings))
            .expect("the server lets us in");
        Arena {
            runtime,
            client,
            settings,
            _server: server,
        }
    }

    /// The time of one load into a fresh table, which must then hold `stored` rows.
    fn load(&self, settings: &LoadSettings, stored: usize) -> Duration {
        self.runtime.block_on(async {
            let fresh = format!(
                "DROP TABLE IF EXISTS lineitem; CREATE TABLE lineitem {LINEITEM}; CHECKPOINT"
            );
            for statement in fresh.split("; ") {
                // CHECKPOINT may not share a transaction with others.
                self.client.batch_execute(statement).await.expect(statement);
            }
            let outcome = load(&self.settings, settings, &Control::default()).await;
            if let Some(error) = outcome.error {
                panic!("{error}");
            }
            let count = self.client.query_one("SELECT count(*) FROM lineitem", &[]);
            let count: i64 = count.await.expect("the table can be read").get(0);
            assert_eq!(usize::try_from(count), Ok(stored), "rows in the table");
            let summary = outcome.summary.expect("a load without an error has one");
            Duration::from_secs_f64(summary.elapsed_seconds)
        })
    }
}

fn settings(file: &Path) -> LoadSettings {
    LoadSettings {
        inputs: vec![Input::File(file.to_path_buf())],
        table: "lineitem".to_string(),
        workers: Some(1),
        ledger: LedgerUse::Off,
        on_error: OnError::Stop,
        progress: ProgressMode::None,
        ..LoadSettings::default()
    }
}

fn rungs(criterion: &mut Criterion) {
    let arena = Arena::start();
    let mut group = criterion.benchmark_group("rung");
    // A load takes 10 to 1,000 ms, too long to run it more often in later samples.
    group.sampling_mode(SamplingMode::Flat);
    for (name, share, strategy, copy_format, commit) in RUNGS {
        let rows = ROWS / share;
        let file = tempfile::Builder::new()
            .suffix(".csv")
            .tempfile()
            .expect("the temporary directory takes files");
        write_lineitem(rows, file.as_file()).expect("the temporary directory has room");
        let settings = LoadSettings {
            strategy,
            copy_format,
            commit,
            ..settings(file.path())
        };
        let stored = if name == "discard" { 0 } else { rows };
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| arena.load(&settings, stored)).sum());
        });
    }
}

fn quick() -> Criterion {
    // One load a sample, for the slow rungs.
    Criterion::default()
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(2))
        .sample_size(10)
}

criterion_group! { name = benches; config = quick(); targets = rungs }
criterion_main!(benches);
