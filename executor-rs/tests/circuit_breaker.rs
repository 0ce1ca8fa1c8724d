//! The circuit breaker on a real Redis: a worker that fails on everything stops by itself, and no step is given up on.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;
#[path = "common/stage.rs"]
mod stage;

use serde_json::{json, Value};
use stage::{until, Message, Stage, Worker, STREAM, TASK};

/// The failure after these is a step's last one.
const LAST: u64 = 4;
const FOR_GOOD: [(&str, &str); 2] = [
    ("OCTOLLM_WORKER_CIRCUIT_BREAKER_TASKS", "3"),
    ("OCTOLLM_WORKER_CIRCUIT_BREAKER_COOLDOWN_S", "600"),
];

/// A step of the task with that number.
fn step(number: usize, tenant: &str, input: &Value, failures: u64) -> Message {
    let task = format!("{}{number:03}", &TASK[..TASK.len() - 3]);
    let mut message = Stage::message(input, failures);
    for (name, value) in &mut message {
        match name.as_str() {
            "id" => *value = value.replace(TASK, &task),
            "tenant" => tenant.clone_into(value),
            "body" => {
                *value = value.replace(TASK, &task).replace(
                    "\"tenant\":\"default\"",
                    &format!("\"tenant\":\"{tenant}\""),
                );
            }
            _ => {}
        }
    }
    message
}

fn good() -> Value {
    json!({"language": "shell", "code": "echo done"})
}

fn add(stage: &Stage, numbers: std::ops::Range<usize>, tenant: &str, failures: u64) {
    for number in numbers {
        stage.add(&step(number, tenant, &good(), failures));
    }
}

/// Breaks every step from now on.
fn break_sandbox(stage: &Stage) {
    std::fs::remove_dir_all(stage.workspaces()).unwrap();
}

fn broken_worker(stage: &Stage, settings: &[(&str, &str)]) -> Worker {
    let worker = stage.worker(settings);
    worker.until_ready();
    break_sandbox(stage);
    worker
}

#[test]
fn what_a_broken_worker_would_give_up_on_is_done_by_a_good_one() {
    let stage = Stage::new();
    let mut bad = broken_worker(&stage, &FOR_GOOD);
    add(&stage, 0..10, "default", LAST);
    let (code, ready) = bad.until_json("/readyz", |code, _| code == 503);
    assert_eq!(
        (code, ready),
        (
            503,
            json!({"ready": false, "reasons": [
                "circuit_open: every step of arm.executor failed on this worker, so it starts no more; see its log"
            ]})
        )
    );
    let metrics = bad.until_metrics("outcome=\"returned\"}");
    for line in [
        "octollm_circuit_open{topic=\"arm.executor\"} 1",
        "octollm_circuit_opened_total{topic=\"arm.executor\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    until("no lease is held", || stage.held_by_workers() == 0);
    // Two were the last of their tasks before there was a third.
    assert_eq!((stage.length("{l0}:dead"), stage.length(STREAM)), (2, 8));
    let whole = tempfile::tempdir().unwrap();
    let folder = whole.path().to_str().unwrap();
    let other = stage.worker(&[("OCTOLLM_EXECUTOR_WORKSPACE_DIR", folder)]);
    other.until_metrics("outcome=\"done\"} 8");
    assert_eq!((stage.length("{l0}:dead"), stage.length(STREAM)), (2, 0));
    assert!(bad
        .get("/metrics")
        .1
        .contains("octollm_circuit_open{topic=\"arm.executor\"} 1"));
    bad.terminate();
    assert_eq!(bad.wait(), Some(0));
}

#[test]
fn what_is_given_back_costs_no_delivery_and_nothing_more_is_begun() {
    let stage = Stage::new();
    let mut bad = broken_worker(&stage, &FOR_GOOD);
    add(&stage, 0..3, "default", LAST);
    bad.until_json("/readyz", |code, _| code == 503);
    // It would go well now, and a read may be on its way that brings it.
    std::fs::create_dir(stage.workspaces()).unwrap();
    stage.add(&step(99, "default", &good(), LAST));
    let read = "outcome=\"released\"} 1";
    until("it is given back, or was never read", || {
        bad.get("/metrics").1.contains(read) || stage.deliveries().len() == 1
    });
    bad.terminate();
    assert_eq!(bad.wait(), Some(0));
    assert_eq!((stage.length("{l0}:dead"), stage.length(STREAM)), (2, 2));
    assert!(
        stage
            .deliveries()
            .iter()
            .all(|(who, count)| who == "released" && *count == 0),
        "{:?}",
        stage.deliveries()
    );
}

#[test]
fn after_a_while_it_tries_one_step_and_goes_on_where_that_goes_well() {
    let stage = Stage::new();
    let worker = broken_worker(
        &stage,
        &[
            ("OCTOLLM_WORKER_CIRCUIT_BREAKER_TASKS", "3"),
            ("OCTOLLM_WORKER_CIRCUIT_BREAKER_COOLDOWN_S", "1"),
        ],
    );
    add(&stage, 0..10, "default", 0);
    worker.until_metrics("octollm_circuit_open{topic=\"arm.executor\"} 1");
    std::fs::create_dir(stage.workspaces()).unwrap();
    worker.until_metrics("octollm_circuit_open{topic=\"arm.executor\"} 0");
    until("all that had not failed before is done", || {
        stage.length(STREAM) == 0
    });
    worker.until_ready();
    assert_eq!(stage.length("{l0}:dead"), 0);
}

#[test]
fn one_tenant_cannot_stop_the_arm_for_the_others() {
    let stage = Stage::new();
    let worker = stage.worker(&FOR_GOOD);
    add(&stage, 0..1, "harmless", 0);
    worker.until_metrics("outcome=\"done\"} 1");
    break_sandbox(&stage);
    add(&stage, 1..10, "hostile", LAST);
    worker.until_metrics("outcome=\"dead\"} 9");
    assert!(worker
        .get("/metrics")
        .1
        .contains("octollm_circuit_open{topic=\"arm.executor\"} 0"));
    add(&stage, 10..11, "harmless", LAST);
    worker.until_metrics("octollm_circuit_open{topic=\"arm.executor\"} 1");
    assert_eq!(stage.length("{l0}:dead"), 9);
}

#[test]
fn what_is_refused_and_what_cannot_be_read_never_blows_it() {
    let stage = Stage::new();
    let worker = stage.worker(&FOR_GOOD);
    for number in 0..5 {
        let mut unreadable = step(number, "default", &good(), 0);
        unreadable.retain(|(name, _)| name != "body");
        stage.add(&unreadable);
    }
    worker.until_metrics("outcome=\"dead\"} 5");
    assert_eq!(worker.get("/readyz").0, 200);
    for number in 0..5 {
        stage.add(&step(number, "default", &json!({"language": "odd"}), 0));
    }
    worker.until_metrics("outcome=\"failed\"} 5");
    assert_eq!(worker.get("/readyz").0, 200);
}

#[test]
fn a_step_that_its_own_content_keeps_from_running_does_not_stop_the_worker_for_others() {
    let stage = Stage::new();
    // So deep that a file with the longest name that a step may choose has no path there.
    let mut folder = stage.workspaces();
    while folder.as_os_str().len() < 3560 {
        folder.push("deep".repeat(20));
    }
    std::fs::create_dir_all(&folder).unwrap();
    let deep = ("OCTOLLM_EXECUTOR_WORKSPACE_DIR", folder.to_str().unwrap());
    let worker = stage.worker(&[FOR_GOOD[0], FOR_GOOD[1], deep]);
    worker.until_ready();
    let path = vec!["n".repeat(99); 5].join("/");
    let odd = json!({"language": "shell", "code": "echo", "files": {path: "x"}});
    for number in 0..6 {
        stage.add(&step(number, "default", &odd, 0));
    }
    // Each is tried again later; none counts against the worker.
    until("all are scheduled", || {
        stage.ask::<usize>(&["ZCARD", "{l0}:schedule"]) == 6
    });
    stage.add(&step(7, "default", &good(), 0));
    let metrics = worker.until_metrics("outcome=\"done\"} 1");
    assert!(
        !metrics.contains("octollm_circuit_opened_total{"),
        "{metrics}"
    );
    assert_eq!(worker.get("/readyz").0, 200);
}
