//! Rows a second of every strategy on a private server: each run is one load, as the command line
//! means it, of the same lineitem rows into a fresh logged table.
//!
//! `pgrung bench` compares more (latencies, WAL, spread); this finds regressions from one commit
//! to the next.

use clap::Parser;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use pgrung::{
    Cli, Command, ConnectSettings, Console, Embedded, EmbeddedOptions, LINEITEM, LoadPlan, Stop,
    load, write_lineitem,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_postgres::Client;

/// Rows of one load; a tenth of them with a commit a row.
const ROWS: usize = 20_000;

/// The rungs: name, share of the rows (1 in this many), flags.
const RUNGS: [(&str, usize, &[&str]); 8] = [
    (
        "insert, commit a row",
        10,
        &["--strategy=insert", "--commit=row"],
    ),
    ("insert", 1, &["--strategy=insert"]),
    ("pipeline", 1, &["--strategy=pipeline"]),
    ("multi-insert", 1, &["--strategy=multi-insert"]),
    ("unnest", 1, &["--strategy=unnest"]),
    ("copy, text", 1, &["--copy-format=text"]),
    ("copy", 1, &[]),
    ("discard", 1, &["--strategy=discard"]),
];

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

    fn plan(&self, file: &Path, flags: &[&str]) -> LoadPlan {
        let file = file.to_str().expect("the temporary directory is UTF-8");
        let fixed = ["pgrung", "load", file, "--table=lineitem", "--workers=1"];
        let quiet = ["--no-ledger", "--on-error=stop", "--quiet"];
        let arguments = fixed.iter().chain(&quiet).chain(flags);
        let Command::Load(arguments) = Cli::parse_from(arguments).command else {
            unreachable!("the command is load");
        };
        arguments
            .plan(self.settings.clone())
            .expect("the flags are sound")
    }

    /// The time of one load into a fresh table, which must then hold `stored` rows.
    fn load(&self, plan: &LoadPlan, stored: usize) -> Duration {
        self.runtime.block_on(async {
            let fresh = format!(
                "DROP TABLE IF EXISTS lineitem; CREATE TABLE lineitem {LINEITEM}; CHECKPOINT"
            );
            for statement in fresh.split("; ") {
                // CHECKPOINT may not share a transaction with others.
                self.client.batch_execute(statement).await.expect(statement);
            }
            let outcome = load(plan, &Console::default(), &Arc::new(Stop::default())).await;
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

fn rungs(criterion: &mut Criterion) {
    let arena = Arena::start();
    let mut group = criterion.benchmark_group("rung");
    // A load takes 10 to 1,000 ms, too long to run it more often in later samples.
    group.sampling_mode(SamplingMode::Flat);
    for (name, share, flags) in RUNGS {
        let rows = ROWS / share;
        let file = tempfile::Builder::new()
            .suffix(".csv")
            .tempfile()
            .expect("the temporary directory takes files");
        write_lineitem(rows, file.as_file()).expect("the temporary directory has room");
        let plan = arena.plan(file.path(), flags);
        let stored = if name == "discard" { 0 } else { rows };
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| arena.load(&plan, stored)).sum());
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
