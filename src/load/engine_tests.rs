//! What the engine promises, whoever fails or stops when: it ends, tells a true reason, and no
//! batch is written twice.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use proptest::prelude::*;

use super::*;
use crate::job::SettingsError;
use crate::queue::Queue;

/// A batch by its reader and number.
type Id = (usize, u64);

/// What a reader does.
#[derive(Debug, Clone)]
struct FakeReader {
    batches: u64,
    /// Whether it fails behind its last batch.
    fails: bool,
}

/// What a worker does.
#[derive(Debug, Clone)]
struct FakeWorker {
    /// Batches until it fails.
    fails_after: Option<usize>,
    /// Batches until it no longer answers.
    hangs_after: Option<usize>,
}

#[derive(Debug, Clone)]
struct Script {
    readers: Vec<FakeReader>,
    workers: Vec<FakeWorker>,
    waiting: usize,
    /// Written batches after which a signal comes.
    asked_after: Option<usize>,
    drain: bool,
}

#[derive(Default)]
struct Log {
    handed_over: Mutex<Vec<Id>>,
    written: Mutex<Vec<Id>>,
    count: AtomicUsize,
    /// Readers that have not ended.
    reading: AtomicUsize,
    asked: Arc<Stop>,
}

fn reader(
    number: usize,
    script: FakeReader,
    queue: &Queue,
    stops: &Stops,
    log: &Arc<Log>,
) -> ReadTask {
    let (full, empty) = (queue.full.clone(), queue.empty.clone());
    let (stops, log) = (stops.clone(), log.clone());
    log.reading.fetch_add(1, SeqCst);
    Box::new(move || {
        let result = read(number, &script, &full, &empty, &stops, &log);
        log.reading.fetch_sub(1, SeqCst);
        result
    })
}

fn read(
    number: usize,
    script: &FakeReader,
    full: &async_channel::Sender<Batch>,
    empty: &async_channel::Receiver<Batch>,
    stops: &Stops,
    log: &Log,
) -> Result<(), InputError> {
    for batch_number in 0..script.batches {
        if stops.halt.is_set() || stops.close.is_set() {
            return Ok(());
        }
        let Ok(mut batch) = empty.recv_blocking() else {
            return Ok(());
        };
        batch.source = number;
        batch.first_record = batch_number;
        if full.send_blocking(batch).is_err() {
            return Ok(());
        }
        log.handed_over.lock().unwrap().push((number, batch_number));
    }
    match script.fails {
        true => Err(InputError::Reader),
        false => Ok(()),
    }
}

fn worker(
    script: FakeWorker,
    ask_after: Option<usize>,
    queue: &Queue,
    stops: &Stops,
    log: &Arc<Log>,
) -> WriteTask {
    let (waiting, give_back) = (queue.waiting.clone(), queue.give_back.clone());
    let (stops, log) = (stops.clone(), log.clone());
    Box::pin(async move {
        let mut mine = 0;
        while !stops.halt.is_set() {
            if script.hangs_after == Some(mine) {
                std::future::pending::<()>().await;
            }
            let Ok(batch) = waiting.recv().await else {
                break;
            };
            if stops.halt.is_set() {
                break;
            }
            tokio::task::yield_now().await;
            if script.fails_after == Some(mine) {
                return Err(Error::Settings(SettingsError("worker".to_string())));
            }
            log.written
                .lock()
                .unwrap()
                .push((batch.source, batch.first_record));
            mine += 1;
            if Some(log.count.fetch_add(1, SeqCst) + 1) == ask_after {
                log.asked.set_by(2);
            }
            let _ = give_back.send(batch).await;
        }
        Ok(())
    })
}

fn run(script: &Script) -> (Result<(), Error>, Arc<Log>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let log = Arc::<Log>::default();
    let stops = Stops::default();
    let buffers = script.waiting + script.readers.len() + script.workers.len();
    let queue = Queue::new(script.waiting, buffers);
    let numbered = script.readers.iter().cloned().enumerate();
    let engine = Engine {
        readers: numbered
            .map(|(number, reading)| reader(number, reading, &queue, &stops, &log))
            .collect(),
        workers: script
            .workers
            .iter()
            .map(|writing| worker(writing.clone(), script.asked_after, &queue, &stops, &log))
            .collect(),
        waiting: queue.waiting.clone(),
        stops,
        drain: script.drain,
        grace: Duration::from_millis(200),
    };
    drop(queue);
    let asked = log.asked.clone();
    // As a display does, which is no reason for a reader to wait.
    let displayed = engine.waiting.clone();
    let ended = runtime.block_on(async {
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, engine.run(&asked)).await
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while log.reading.load(SeqCst) > 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "a reader does not end"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(displayed);
    runtime.shutdown_background();
    (ended.expect("the engine ends"), log)
}

fn script() -> impl Strategy<Value = Script> {
    let reader = (0u64..12, prop::bool::weighted(0.2))
        .prop_map(|(batches, fails)| FakeReader { batches, fails });
    let worker = (
        prop::option::weighted(0.2, 0usize..8),
        prop::option::weighted(0.2, 0usize..8),
    )
        .prop_map(|(fails_after, hangs_after)| FakeWorker {
            fails_after,
            hangs_after,
        });
    (
        prop::collection::vec(reader, 1..4),
        prop::collection::vec(worker, 1..4),
        1usize..4,
        prop::option::of(1usize..12),
        any::<bool>(),
    )
        .prop_map(|(readers, mut workers, waiting, asked_after, drain)| {
            // A worker that hangs holds the load up for good unless somebody else ends it; keep one
            // that gets to the signal.
            let ends = asked_after.is_some();
            for worker in &mut workers {
                worker.hangs_after = worker.hangs_after.filter(|_| ends);
            }
            workers[0].hangs_after = None;
            Script {
                readers,
                workers,
                waiting,
                asked_after,
                drain,
            }
        })
}

/// Whether the load can come to its end or to the signal: a worker that hangs before either would
/// rightly be waited for.
fn comes_to_an_end(script: &Script) -> bool {
    let all: u64 = script.readers.iter().map(|reader| reader.batches).sum();
    let hangs = script
        .workers
        .iter()
        .any(|worker| worker.hangs_after.is_some());
    !hangs || script.asked_after.is_some_and(|asked| asked as u64 <= all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn it_ends_with_a_true_reason_and_writes_no_batch_twice(script in script()) {
        prop_assume!(comes_to_an_end(&script));
        let (result, log) = run(&script);
        let mut written = log.written.lock().unwrap().clone();
        let handed_over = log.handed_over.lock().unwrap();
        written.sort_unstable();
        let mut once = written.clone();
        once.dedup();
        prop_assert_eq!(&once, &written, "no batch is written twice");

        let asked = log.asked.is_set();
        let worker_failed = matches!(&result, Err(Error::Settings(_)));
        let reader_failed = matches!(&result, Err(Error::Input(InputError::Reader)));
        prop_assert_eq!(result.is_err(), worker_failed || reader_failed, "{:?}", result);
        if reader_failed {
            prop_assert!(script.readers.iter().any(|reader| reader.fails) && !asked);
        }
        let hangs = script.workers.iter().any(|worker| worker.hangs_after.is_some());
        if !worker_failed && !hangs && (!asked || script.drain) {
            // Whatever was read is written, also behind a reader that failed.
            let mut all = handed_over.clone();
            all.sort_unstable();
            prop_assert_eq!(&written, &all);
        }
        if result.is_ok() && !asked {
            let all: u64 = script.readers.iter().map(|reader| reader.batches).sum();
            prop_assert_eq!(written.len() as u64, all);
            prop_assert!(!script.readers.iter().any(|reader| reader.fails));
        }
    }
}

#[test]
fn a_worker_that_panics_is_a_failure_that_stops_the_others() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let queue = Queue::new(1, 4);
    let stops = Stops::default();
    let log = Arc::<Log>::default();
    let endless = FakeReader {
        batches: u64::MAX,
        fails: false,
    };
    let diligent = FakeWorker {
        fails_after: None,
        hangs_after: None,
    };
    let engine = Engine {
        readers: vec![reader(0, endless, &queue, &stops, &log)],
        workers: vec![
            Box::pin(async { panic!("on purpose") }),
            worker(diligent, None, &queue, &stops, &log),
        ],
        waiting: queue.waiting.clone(),
        stops: stops.clone(),
        drain: false,
        grace: Duration::from_secs(5),
    };
    let result = runtime.block_on(engine.run(&Arc::default()));
    assert!(
        matches!(
            result,
            Err(Error::Panic {
                what: "a worker",
                ..
            })
        ),
        "{result:?}"
    );
    assert!(stops.close.is_set() && stops.halt.is_set());
}
