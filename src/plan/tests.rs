//! Plans worked out by hand.

use proptest::prelude::*;

use super::recommend::Obstacle;
use super::*;
use crate::window::FlushReason;

/// 1,000 rows/s of 100 bytes, 500 ms or 20,000 rows or 4 MiB, COPY with 1 ms round trips, 2 ms
/// commits and 2 microseconds a row.
fn basis(round_trip: Duration, commit: Duration) -> Basis {
    let given = |time| Figure {
        time,
        from: Origin::Given,
    };
    Basis::new(given(round_trip), given(commit), given(WAL_WRITER_DELAY))
}

fn request() -> Request {
    Request {
        rows_per_second: 1_000.0,
        row_bytes: 100.0,
        latency: None,
        basis: basis(Duration::from_millis(1), Duration::from_millis(2)),
        window: Window {
            rows: 20_000,
            bytes: 4 << 20,
            wait: Some(Duration::from_millis(500)),
        },
        strategy: StrategyKind::Copy,
        workers: 1,
        queue: 2,
        ledger: true,
        costs: Costs::default(),
    }
}

fn free() -> Costs {
    Costs {
        insert: Duration::ZERO,
        pipeline: Duration::ZERO,
        multi_insert: Duration::ZERO,
        unnest: Duration::ZERO,
        copy: Duration::ZERO,
    }
}

#[track_caller]
fn assert_near(got: f64, expected: f64) {
    assert!(
        (got - expected).abs() <= expected.abs() * 1e-3 + 1e-9,
        "{got} is not {expected}"
    );
}

#[test]
fn a_slow_stream_is_closed_by_the_timer() {
    let plan = plan(&request()).unwrap();
    assert_eq!(plan.batch.trigger, "wait");
    assert_eq!(
        plan.batch.because,
        "max-wait is reached after 500 ms, batch-rows only after 20.0 s and batch-bytes only after 41.9 s"
    );
    // Rows at 0, 1, ..., 499 ms: 500 of 20,000.
    assert_eq!((plan.batch.rows, plan.batch.bytes), (500, 50_000));
    assert_near(plan.batch.fill_percent, 2.5);
    assert_near(plan.batch.per_second, 2.0);
    // 4 + 2 round trips, 2 ms commit, 500 x 2 us.
    assert_near(plan.transaction_ms, 9.0);
    assert_near(plan.utilisation, 0.018);
    assert_eq!(plan.pace, Pace::KeepsUp);
    // First row 500 + 9; the rows are spread over 499 ms.
    let wait = plan.wait_ms.unwrap();
    assert_near(wait.first_row, 509.0);
    assert_near(wait.p50, 509.0 - 249.5);
    assert_near(wait.p99, 509.0 - 4.99);
}

#[test]
fn the_first_limit_that_is_reached_closes_the_batch() {
    // (rows/s, row bytes, batch rows, batch bytes, wait ms) -> trigger, rows, fill ms
    for (rate, row, rows, bytes, wait, expected) in [
        // 19,999 gaps of 20 us are 399.98 ms.
        (
            50_000.0,
            100.0,
            20_000,
            4 << 20,
            500,
            ("rows", 20_000, 399.98),
        ),
        // 4,194 rows fit into 4 MiB; the next one comes after 4,194 gaps.
        (
            50_000.0,
            1_000.0,
            20_000,
            4 << 20,
            500,
            ("bytes", 4_194, 83.88),
        ),
        // Exactly 10 rows fit: the tenth closes the batch, after 9 gaps.
        (1_000.0, 10.0, 20, 100, 500, ("bytes", 10, 9.0)),
        // 10 rows by rows and by bytes: rows is asked first.
        (1_000.0, 10.0, 10, 100, 500, ("rows", 10, 9.0)),
        // The eleventh row would close it at 10 ms, but so does the timer, before that row.
        (1_000.0, 10.0, 11, 1_000, 10, ("wait", 10, 10.0)),
        // A row longer than the window's bytes is a batch.
        (1_000.0, 5_000.0, 10, 100, 500, ("bytes", 1, 0.0)),
        // One row a second, 200 ms.
        (1.0, 100.0, 1_000, 1 << 20, 200, ("wait", 1, 200.0)),
    ] {
        let plan = plan(&Request {
            rows_per_second: rate,
            row_bytes: row,
            window: Window {
                rows,
                bytes,
                wait: Some(Duration::from_millis(wait)),
            },
            ..request()
        })
        .unwrap();
        let (trigger, rows, fill) = expected;
        assert_eq!(plan.batch.trigger, trigger, "{expected:?}");
        assert_eq!(plan.batch.rows, rows, "{expected:?}");
        assert_near(plan.batch.fill_ms, fill);
    }
}

#[test]
fn ceilings_are_round_trips_and_commits() {
    let plan = plan(&Request {
        basis: basis(Duration::from_millis(1), Duration::from_millis(9)),
        window: Window {
            rows: 1_000,
            bytes: 4 << 20,
            wait: None,
        },
        costs: free(),
        ..request()
    })
    .unwrap();
    let ceilings: Vec<_> = plan
        .ceilings
        .iter()
        .map(|ceiling| {
            (
                ceiling.strategy,
                ceiling.commit,
                ceiling.rows_per_second.round(),
            )
        })
        .collect();
    // A batch is 4 round trips and the commit, 13 ms, and then:
    assert_eq!(
        ceilings,
        [
            ("insert", "row", 100.0),            // 1 + 9 ms a row
            ("insert", "batch", 987.0),          // 1,000 round trips: 1,013 ms
            ("pipeline", "batch", 55_846.0),     // 1 + 1,000/256 round trips: 17.906 ms
            ("multi-insert", "batch", 71_429.0), // 1 round trip: 14 ms
            ("unnest", "batch", 71_429.0),       // 1 round trip: 14 ms
            ("copy", "batch", 66_667.0),         // 2 round trips: 15 ms
        ]
    );
    assert!(!plan.ceilings[1].enough && plan.ceilings[2].enough);
}

#[test]
fn more_workers_carry_more_and_no_ledger_saves_two_round_trips() {
    let base = Request {
        costs: free(),
        ..request()
    };
    let copy = |request: &Request| plan(request).unwrap().ceilings[5].rows_per_second;
    let four = Request {
        workers: 4,
        ..base.clone()
    };
    assert_near(copy(&four), 4.0 * copy(&base));
    // 20,000 rows in 6 + 2 ms, and in 4 + 2 ms.
    assert_near(copy(&base), 2_500_000.0);
    let bare = Request {
        ledger: false,
        ..base
    };
    assert_near(copy(&bare), 20_000.0 / 0.006);
}

#[test]
fn a_crash_of_the_server_costs_three_rounds_of_the_wal_writer() {
    let plan = plan(&request()).unwrap();
    let losses: Vec<_> = plan
        .loss
        .server_crash
        .iter()
        .map(|crash| (crash.durability, crash.milliseconds, crash.rows))
        .collect();
    // At most 2 of the commits that come every 500 ms are within 600 ms.
    assert_eq!(
        losses,
        [
            ("off", 600.0, 1_000),
            ("end", 600.0, 1_000),
            ("local", 0.0, 0),
            ("on", 0.0, 0),
            ("remote-write", 0.0, 0),
            ("remote-apply", 0.0, 0),
        ]
    );
}

#[test]
fn a_crash_of_the_loader_costs_what_it_holds() {
    let crash = plan(&request()).unwrap().loss.loader_crash;
    // 1,000 rows/s x 259.5 ms.
    assert_eq!(crash.typical_rows, Some(260));
    // 4 buffers of 20,000 rows and 256 KiB of 100 bytes a row.
    assert_eq!(crash.most_rows, 82_621);
    assert_near(crash.most_milliseconds, 82_621.0);
}

#[test]
fn memory_is_buffers_and_pieces() {
    let memory = plan(&request()).unwrap().memory;
    assert_eq!(memory.buffers, 4);
    assert_eq!(memory.buffer_bytes, 4 * ((4 << 20) + 4 * 20_000));
    assert_eq!(memory.touched_bytes, 4 * (50_000 + 4 * 500));
    assert_eq!(memory.encode_bytes, 4 * 72 * 1024);
    assert_eq!(
        memory.total_bytes,
        memory.buffer_bytes + memory.encode_bytes + 256 * 1024
    );
}

/// 1,500 rows/s by one INSERT a row: 9 ms a batch and 1 ms a row.
fn tight() -> Request {
    Request {
        rows_per_second: 1_500.0,
        basis: basis(Duration::from_millis(1), Duration::from_millis(5)),
        window: Window {
            rows: 20_000,
            bytes: 4 << 20,
            wait: Some(Duration::from_millis(10)),
        },
        strategy: StrategyKind::Insert,
        workers: 2,
        costs: free(),
        ..request()
    }
}

#[test]
fn saturated_workers_make_the_batches_grow() {
    let plan = plan(&tight()).unwrap();
    // 15 rows take 24 ms, 100 times a second: 1.2 of 2 workers' time.
    assert_eq!(plan.batch.rows, 15);
    assert_near(plan.utilisation, 1.2);
    assert_eq!(plan.pace, Pace::Saturated);
    // 2 workers carry 2n rows in 9 + n ms: 1,500/s at n = 27. 5 buffers of 18 ms.
    let wait = plan.wait_ms.unwrap();
    assert_near(wait.first_row, 90.0);
    assert_near(wait.p50, 81.0);
}

#[test]
fn beyond_the_ceiling_the_wait_grows_without_end() {
    let request = Request {
        rows_per_second: 2_001.0,
        ..tight()
    };
    let plan = plan(&request).unwrap();
    assert_eq!(plan.pace, Pace::Overloaded);
    assert_eq!(plan.wait_ms, None);
    assert_eq!(plan.loss.loader_crash.typical_rows, None);
    assert!(plan.to_string().contains("wait     grows without end"));
}

fn advice(request: &Request) -> Recommendation {
    plan(request).unwrap().recommendation
}

#[test]
fn settings_that_do_are_left_alone() {
    let good = advice(&Request {
        latency: Some(Duration::from_millis(510)),
        ..request()
    });
    assert!(good.good_as_given);
    assert_eq!(
        good.sentence,
        "the settings as given keep up and keep 510 ms"
    );
    assert!(advice(&request()).good_as_given);
}

#[test]
fn a_latency_is_kept_by_the_longest_wait_that_keeps_it() {
    // wait + 6 + 2 ms + 2 x wait x 1 row/ms x 2 us = 200 ms: wait = 191.2 ms, 190 in two digits.
    let advice = advice(&Request {
        latency: Some(Duration::from_millis(200)),
        ..request()
    });
    assert!(!advice.good_as_given);
    assert_eq!(
        advice.sentence,
        "use --strategy copy --batch-rows 380 --max-wait 190ms --workers 1"
    );
}

#[test]
fn a_strategy_that_cannot_is_replaced_by_copy() {
    let advice = advice(&Request {
        rows_per_second: 100_000.0,
        strategy: StrategyKind::Insert,
        ..request()
    });
    let settings = advice.settings.unwrap();
    // 20,000 rows take 48 ms, 5 times a second: 24 % of one worker.
    assert_eq!((settings.strategy, settings.workers), ("copy", 1));
}

#[test]
fn what_cannot_be_kept_is_said_with_what_stands_in_the_way() {
    let latency = Some(Duration::from_millis(200));
    let far = advice(&Request {
        latency,
        basis: basis(Duration::from_millis(100), Duration::from_millis(2)),
        ..request()
    });
    assert_eq!(far.obstacle, Some(Obstacle::RoundTrip));
    assert_eq!(
        far.sentence,
        "the latency cannot be kept: the round trips of one transaction alone take 600 ms; run the loader closer to the server"
    );
    let slow = advice(&Request {
        latency,
        basis: basis(Duration::from_millis(1), Duration::from_millis(300)),
        ..request()
    });
    assert_eq!(slow.obstacle, Some(Obstacle::Commit));
    let many = advice(&Request {
        latency,
        rows_per_second: 1e9,
        ..request()
    });
    assert_eq!(many.obstacle, Some(Obstacle::Rows));
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    for (bad, expected) in [
        (
            Request {
                rows_per_second: 0.0,
                ..request()
            },
            "rows per second must be more than 0",
        ),
        (
            Request {
                row_bytes: f64::NAN,
                ..request()
            },
            "row bytes must be more than 0",
        ),
        (
            Request {
                workers: 0,
                ..request()
            },
            "workers must be more than 0",
        ),
        (
            Request {
                strategy: StrategyKind::Discard,
                ..request()
            },
            "discard sends nothing to a server: name another --strategy",
        ),
    ] {
        assert_eq!(plan(&bad).unwrap_err().to_string(), expected);
    }
}

#[test]
fn the_report_says_all_there_is() {
    let plan = plan(&Request {
        latency: Some(Duration::from_millis(200)),
        ..request()
    })
    .unwrap();
    insta::assert_snapshot!(plan, @r"
    window   closes by wait: max-wait is reached after 500 ms, batch-rows only after 20.0 s and batch-bytes only after 41.9 s
      batch  500 rows, 48.83 KiB, 2.5 % full, 2.0 batches/s
    server   9.0 ms a transaction; 1 worker busy 2 % of the time
    wait     p50 260 ms, p99 504 ms, first row of a batch 509 ms
    ceiling  rows/s of each strategy, 1 worker, full batches, rows as below:
      insert, commit row                 330  too few
      insert, commit batch               970  too few
      pipeline, commit batch          32,948  enough
      multi-insert, commit batch      88,495  enough
      unnest, commit batch           106,951  enough
      copy, commit batch             416,666  enough
    memory   16.84 MiB at most: 4 buffers of 4.08 MiB, of which 203.12 KiB are ever touched; encoding 288.00 KiB
    loss     when the server crashes, by --durability:
      off           the commits of the last 600 ms, at most 1,000 rows
      end           the commits of the last 600 ms, at most 1,000 rows; nothing once the load has ended
      local         nothing
      on            nothing
      remote-write  nothing
      remote-apply  nothing
      when the loader crashes and reads a pipe: some 260 rows, at most 82,621 (82.6 s of the stream)
    basis    round trip 1.0 ms (given), commit 2.0 ms (given), wal_writer_delay 200 ms (given)
      rows   at the costs of TPC-H lineitem, 16 columns, some 130 bytes a row, no index, not those of your table;
             pgrung bench --input FILE --table T measures yours
    verdict  by these figures: use --strategy copy --batch-rows 380 --max-wait 190ms --workers 1
    ");
}

#[test]
fn the_json_has_units_in_its_names() {
    let json = serde_json::to_value(plan(&request()).unwrap()).unwrap();
    assert_eq!(json["batch"]["trigger"], FlushReason::Wait.name());
    assert_eq!(json["pace"], "keeps-up");
    assert_eq!(json["loss"]["server_crash"][0]["durability"], "off");
    assert_eq!(json["recommendation"]["settings"]["max_wait_ms"], 500.0);
}

fn any_request() -> impl Strategy<Value = Request> {
    let load = (0.1f64..1e6, 1.0f64..10_000.0, prop::option::of(1u64..5_000));
    let server = (0u64..50_000, 0u64..50_000, 0usize..5, any::<bool>());
    let window = (
        1usize..100_000,
        1usize..16 << 20,
        prop::option::of(0u64..2_000_000),
    );
    (load, server, window, 1usize..16, 0usize..8).prop_map(
        |(load, server, window, workers, queue)| Request {
            rows_per_second: load.0,
            row_bytes: load.1,
            latency: load.2.map(Duration::from_millis),
            basis: basis(
                Duration::from_micros(server.0),
                Duration::from_micros(server.1),
            ),
            window: Window {
                rows: window.0,
                bytes: window.1,
                wait: window.2.map(Duration::from_micros),
            },
            strategy: StrategyKind::ALL[server.2],
            workers,
            queue,
            ledger: server.3,
            costs: Costs::default(),
        },
    )
}

proptest! {
    #[test]
    fn every_recommendation_does_what_it_promises(request in any_request()) {
        let advice = advice(&request);
        prop_assert_eq!(advice.settings.is_none(), advice.obstacle.is_some());
        let Some(settings) = advice.settings else {
            return Ok(());
        };
        let strategy = StrategyKind::ALL
            .into_iter()
            .find(|strategy| strategy.name() == settings.strategy)
            .unwrap();
        let kept = plan(&Request {
            strategy,
            workers: settings.workers,
            window: Window {
                rows: settings.batch_rows.map_or(usize::MAX, |rows| rows as usize),
                wait: settings.max_wait_ms.map(|ms| Duration::from_secs_f64(ms / 1e3)),
                ..request.window
            },
            ..request
        })
        .unwrap();
        prop_assert!(kept.recommendation.good_as_given, "{}", kept);
    }

    #[test]
    fn every_plan_holds_together(request in any_request()) {
        let plan = plan(&request).unwrap();
        prop_assert!(plan.batch.rows >= 1 && plan.batch.rows <= request.window.rows as u64);
        prop_assert!(plan.batch.fill_percent > 0.0 && plan.batch.fill_percent <= 100.0);
        prop_assert_eq!(plan.pace == Pace::Overloaded, plan.wait_ms.is_none());
        if let Some(wait) = plan.wait_ms {
            prop_assert!(wait.p50 <= wait.p99 && wait.p99 <= wait.first_row && wait.p50 > 0.0);
        }
        for ceiling in &plan.ceilings {
            prop_assert!(ceiling.rows_per_second.is_finite());
        }
        prop_assert!(!plan.to_string().contains("NaN"));
    }
}
