//! A Redis that hangs: its connections stay open, and nothing is answered.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::time::{Duration, Instant};

use serde_json::json;
use stage::{Stage, Worker};

fn until_red(worker: &Worker) -> String {
    worker.until_http("/readyz", |code, text| {
        code == 503 && text.contains("Redis")
    })
}

fn works_again(stage: &Stage) {
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo done"}),
        0,
    ));
    assert_eq!(stage.done(0).1["outcome"], "succeeded");
}

#[test]
fn a_worker_is_not_ready_within_two_seconds_and_recovers_by_itself() {
    let stage = Stage::new();
    let worker = stage.worker(&[]);
    worker.until_ready();
    stage.signal_redis("STOP");
    let hung = Instant::now();
    until_red(&worker);
    assert!(hung.elapsed() < Duration::from_secs(2));
    // The connection is given up, so that each later command fails at once.
    worker.until_http("/readyz", |_, text| text.contains("no connection to"));
    let asked = Instant::now();
    assert_eq!(worker.get("/readyz").0, 503);
    assert!(asked.elapsed() < Duration::from_secs(1));
    stage.signal_redis("CONT");
    worker.until_ready();
    works_again(&stage);
}

#[test]
fn a_worker_that_starts_while_redis_hangs_says_so_at_once_and_starts_later() {
    let stage = Stage::new();
    stage.signal_redis("STOP");
    let worker = stage.worker(&[]);
    for _ in 0..5 {
        let asked = Instant::now();
        until_red(&worker);
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
    stage.signal_redis("CONT");
    worker.until_ready();
    works_again(&stage);
}

#[test]
fn a_worker_ends_in_order_while_redis_hangs() {
    let stage = Stage::new();
    let mut worker = stage.worker(&[("OCTOLLM_EXECUTOR_DRAIN_S", "1")]);
    worker.until_ready();
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 60"}),
        0,
    ));
    worker.until_metrics("octollm_running_messages{topic=\"arm.executor\"} 1");
    stage.signal_redis("STOP");
    let began = Instant::now();
    worker.terminate();
    assert_eq!(worker.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(30));
    stage.signal_redis("CONT");
}
