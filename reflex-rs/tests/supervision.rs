//! What must not stop the reflex, and what must: a log that cannot be written, and a loop that breaks.
#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use common::{Redis, Reflex};

const BODY: &[u8] = br#"{"goal": "x"}"#;

/// Every loop of the reflex, as the supervisor names it.
const LOOPS: [&str; 9] = [
    "admissions",
    "event reader",
    "http server",
    "ingest consumer",
    "ingest removals",
    "lease renewal",
    "published kinds",
    "redis connection",
    "replicated admissions",
];

#[test]
fn a_loop_that_breaks_ends_the_process() {
    let redis = Redis::start();
    let _replica = redis.start_replica();
    for name in LOOPS {
        for (how, cause) in [("panic", "panicked"), ("end", "ended unexpectedly")] {
            let order = format!("{name}={how}");
            let settings = [("TEST_BREAK_LOOP", order.as_str())];
            let mut reflex = Reflex::start_with(&redis.url(), &settings);
            if name == "replicated admissions" {
                // It starts with the first request that needs it.
                reflex.until_ready();
                let answer = reflex.post(BODY, "octollm-durability: replicated(1)\r\n");
                assert_eq!(answer.status, 202, "{answer:?}");
            }
            assert_eq!(reflex.exit_code(), Some(1), "{order}");
            let last = format!("octollm-reflex stops: task \\\"{name}\\\" {cause}");
            common::until(&last, || {
                reflex.log().join("").contains(&last).then_some(())
            });
        }
    }
}

#[test]
fn a_reflex_whose_log_is_closed_works_on_and_ends_in_order() {
    let redis = Redis::start();
    let (reflex, log) = Reflex::with_unread_log(&redis);
    drop(log);
    for _ in 0..3 {
        assert_eq!(reflex.post(BODY, "").status, 202);
    }
    assert_eq!(redis.length("{l0}:tasks:normal"), 3);
    // The writer's thread counts a lost line only after it has tried to write it.
    common::until("the lost lines are counted", || {
        (reflex.metric("octollm_log_lines_dropped_total") >= 3).then_some(())
    });
    assert_eq!(reflex.get("/readyz").status, 200);
    assert_eq!(reflex.terminate(), Some(0));
}

#[test]
fn a_reflex_whose_log_nobody_reads_works_on_and_ends_in_order() {
    let redis = Redis::start();
    let (reflex, log) = Reflex::with_unread_log(&redis);
    // Each is a line of log: together far more than a pipe holds.
    for _ in 0..600 {
        assert_eq!(reflex.post(BODY, "").status, 202);
    }
    assert_eq!(reflex.get("/readyz").status, 200);
    assert_eq!(reflex.terminate(), Some(0));
    drop(log);
}

#[test]
fn a_reflex_whose_log_is_on_a_full_disk_works_on_and_ends_in_order() {
    let redis = Redis::start();
    let full = std::fs::File::options().write(true).open("/dev/full");
    let reflex = Reflex::logging_to(&redis, full.unwrap());
    assert_eq!(reflex.post(BODY, "").status, 202);
    common::until("the lost lines are counted", || {
        (reflex.metric("octollm_log_lines_dropped_total") >= 1).then_some(())
    });
    assert_eq!(reflex.get("/readyz").status, 200);
    assert_eq!(reflex.terminate(), Some(0));
}
