//! What must not stop the worker, and what must: a log that cannot be written, and a loop that breaks.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;
#[path = "common/stage.rs"]
mod stage;

use serde_json::json;
use stage::{until, Stage, STREAM};

/// Every loop of the worker, as the supervisor names it.
const LOOPS: [&str; 6] = [
    "admin endpoints",
    "control channel",
    "lease renewal",
    "reader",
    "reclaimer",
    "redis connection",
];

#[test]
fn a_loop_that_breaks_ends_the_process() {
    let stage = Stage::new();
    for name in LOOPS {
        for (how, cause) in [("panic", "panicked"), ("end", "ended unexpectedly")] {
            let order = format!("{name}={how}");
            let log = stage.refused(&[("TEST_BREAK_LOOP", &order)]);
            let last = format!("octollm-executor stops: task \\\"{name}\\\" {cause}");
            assert!(log.contains(&last), "{order}: {log}");
        }
    }
    until("no consumer is left", || stage.consumers() == 0);
}

#[test]
fn a_worker_whose_log_is_closed_works_on_and_ends_in_order() {
    let stage = Stage::new();
    let (mut worker, log) = stage.worker_and_log(&[]);
    worker.until_ready();
    drop(log);
    stage.add(&Stage::message(
        &json!({"language": "python", "code": "print(1)"}),
        0,
    ));
    assert_eq!(stage.done(0).1["outcome"], "succeeded");
    until("nothing is left", || stage.length(STREAM) == 0);
    let metrics = worker.until_metrics("outcome=\"done\"} 1");
    assert!(
        !metrics.contains("octollm_log_lines_dropped_total 0"),
        "{metrics}"
    );
    assert_eq!(worker.get("/readyz").0, 200);
    worker.terminate();
    assert_eq!(worker.wait(), Some(0));
}

#[test]
fn a_worker_whose_log_nobody_reads_works_on_and_ends_in_order() {
    const STEPS: usize = 300;
    let stage = Stage::new();
    let (mut worker, log) = stage.worker_and_log(&[]);
    worker.until_ready();
    for _ in 0..STEPS {
        // Fails at once, with some lines of log: far more than a pipe holds.
        stage.add(&Stage::message(&json!({"language": "odd"}), 0));
    }
    worker.until_metrics(&format!("outcome=\"failed\"}} {STEPS}"));
    assert_eq!(worker.get("/readyz").0, 200);
    worker.terminate();
    assert_eq!(worker.wait(), Some(0));
    drop(log);
}

#[test]
fn a_worker_whose_log_is_on_a_full_disk_works_on_and_ends_in_order() {
    let stage = Stage::new();
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut worker = stage.worker_logging_to(full.unwrap());
    worker.until_ready();
    stage.add(&Stage::message(
        &json!({"language": "python", "code": "print(1)"}),
        0,
    ));
    assert_eq!(stage.done(0).1["outcome"], "succeeded");
    let metrics = worker.until_metrics("outcome=\"done\"} 1");
    assert!(
        !metrics.contains("octollm_log_lines_dropped_total 0"),
        "{metrics}"
    );
    worker.terminate();
    assert_eq!(worker.wait(), Some(0));
}
