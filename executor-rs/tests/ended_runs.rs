//! Steps whose run has ended or whose deadline has passed: never started, or stopped at once.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;
#[path = "common/stage.rs"]
mod stage;

use serde_json::json;
use stage::{until, Stage, STREAM, TASK};

#[test]
fn an_ended_runs_process_is_killed_at_once_and_nothing_is_reported() {
    // No heartbeat comes while this runs: only the control channel tells.
    let stage = Stage::with(1800, 600);
    let worker = stage.worker(&[]);
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 90", "limits": {"wall_s": 90}}),
        0,
    ));
    until("the step is taken", || stage.pending() == 1);
    // Neither a message that Redis does not confirm nor another tenant's run stops it.
    stage.say(&format!("ended {TASK}.1"));
    stage.end_run("other");
    stage.say(&format!("ended {TASK}.1"));
    stage.say("a word of a newer version");
    assert_eq!((stage.pending(), stage.length(STREAM)), (1, 1));
    stage.end_run("default");
    stage.say(&format!("ended {TASK}.1"));
    worker.until_metrics("outcome=\"run_ended\"} 1");
    assert_eq!(
        (stage.length("{l0}:steps.done"), stage.length(STREAM)),
        (0, 0)
    );
    assert_eq!(stage.live(), None);
    worker.until_metrics("octollm_running_messages{topic=\"arm.executor\"} 0");
}

#[test]
fn a_heartbeat_finds_an_ended_run_when_nobody_said_so() {
    let stage = Stage::new();
    let worker = stage.worker(&[]);
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 90", "limits": {"wall_s": 90}}),
        0,
    ));
    until("the step is taken", || stage.pending() == 1);
    stage.end_run("default");
    worker.until_metrics("outcome=\"run_ended\"} 1");
    assert_eq!(
        (stage.length("{l0}:steps.done"), stage.length(STREAM)),
        (0, 0)
    );
}

#[test]
fn a_step_of_an_ended_run_is_never_started() {
    let stage = Stage::new();
    stage.end_run("default");
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo done"}),
        0,
    ));
    let worker = stage.worker(&[]);
    let metrics = worker.until_metrics("outcome=\"run_ended\"} 1");
    assert!(!metrics.contains("octollm_step_seconds_count"), "{metrics}");
    assert_eq!(stage.length("{l0}:steps.done"), 0);
    stage.delete_ended_runs();
    stage.end_run("other");
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo done"}),
        0,
    ));
    assert_eq!(stage.done(0).1["outcome"], "succeeded");
}

#[test]
fn a_step_past_its_deadline_is_removed_without_starting() {
    let stage = Stage::new();
    stage.add(&Stage::message_due_in(
        &json!({"language": "shell", "code": "echo late"}),
        -1,
    ));
    let worker = stage.worker(&[]);
    let metrics = worker.until_metrics("outcome=\"run_ended\"} 1");
    assert!(!metrics.contains("octollm_step_seconds_count"), "{metrics}");
    assert_eq!(
        (stage.length("{l0}:steps.done"), stage.length("{l0}:dead")),
        (0, 0)
    );
    assert_eq!((stage.length(STREAM), stage.live()), (0, None));
}

#[test]
fn a_running_step_is_stopped_when_its_deadline_passes() {
    let stage = Stage::new();
    let worker = stage.worker(&[]);
    worker.until_ready();
    let began = std::time::Instant::now();
    stage.add(&Stage::message_due_in(
        &json!({"language": "shell", "code": "sleep 90", "limits": {"wall_s": 90}}),
        2000,
    ));
    worker.until_metrics("octollm_running_messages{topic=\"arm.executor\"} 1");
    worker.until_metrics("outcome=\"run_ended\"} 1");
    assert!(began.elapsed() >= std::time::Duration::from_secs(2));
    assert_eq!(
        (stage.length("{l0}:steps.done"), stage.length(STREAM)),
        (0, 0)
    );
    worker.until_metrics("octollm_running_messages{topic=\"arm.executor\"} 0");
}

#[test]
fn a_step_before_its_deadline_is_reported_as_any_other() {
    let stage = Stage::new();
    let _worker = stage.worker(&[]);
    stage.add(&Stage::message_due_in(
        &json!({"language": "shell", "code": "echo done"}),
        60_000,
    ));
    assert_eq!(stage.done(0).1["outcome"], "succeeded");
}
