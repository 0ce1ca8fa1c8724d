//! The worker on a real Redis: every way a message can end.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;
#[path = "common/stage.rs"]
mod stage;

use serde_json::json;
use stage::{until, Stage, ID, LIVE, STREAM};

#[test]
fn a_step_from_before_the_start_is_run_and_reported() {
    let stage = Stage::new();
    stage.add(&Stage::message(
        &json!({"language": "python", "code": "print('{\"a\": 1}')", "parse": "json"}),
        0,
    ));
    let worker = stage.worker(&[]);
    let (entry, done) = stage.done(0);
    assert_eq!(done["outcome"], "succeeded", "{done}");
    let output = &done["output"]["value"];
    assert_eq!(
        (&output["outcome"], &output["result"]),
        (&json!("ok"), &json!({"a": 1})),
        "{done}"
    );
    assert_eq!(
        (&done["delivery"], &done["attempt"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(stage.length(STREAM), 0);
    assert_eq!(
        stage.live().as_deref(),
        Some(format!("{{l0}}:steps.done {entry}").as_str())
    );
    let metrics = worker.until_metrics("outcome=\"done\"} 1");
    assert!(
        metrics.contains("octollm_step_seconds_count{language=\"python\"} 1"),
        "{metrics}"
    );
    let ready = json!({"ready": true, "reasons": []});
    assert_eq!(worker.get_json("/readyz"), (200, ready));
    assert_eq!(worker.get_json("/healthz"), (200, json!({"status": "ok"})));
}

#[test]
fn a_code_that_fails_is_a_succeeded_step() {
    let stage = Stage::new();
    let _worker = stage.worker(&[]);
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo no >&2; exit 4"}),
        0,
    ));
    let (_, done) = stage.done(0);
    let output = &done["output"]["value"];
    assert_eq!(
        (&done["outcome"], &output["exit_code"]),
        (&json!("succeeded"), &json!(4)),
        "{done}"
    );
    assert_eq!(output["isolation"]["tier"], "namespaces");
}

#[test]
fn an_invalid_input_fails_for_good_and_names_the_field() {
    let stage = Stage::new();
    let _worker = stage.worker(&[]);
    stage.add(&Stage::message(
        &json!({"language": "python", "code": "", "surprise": 1}),
        0,
    ));
    let (_, done) = stage.done(0);
    assert_eq!(
        (&done["outcome"], &done["error"]["code"]),
        (&json!("failed"), &json!("invalid_input"))
    );
    assert!(
        done["error"]["message"]
            .as_str()
            .unwrap()
            .contains("surprise"),
        "{done}"
    );
    assert_eq!(stage.length(STREAM), 0);
}

#[test]
fn what_cannot_be_read_becomes_a_dead_letter_with_its_original() {
    let stage = Stage::new();
    let _worker = stage.worker(&[]);
    let valid = Stage::message(&json!({"language": "python", "code": ""}), 0);
    let with = |name: &str, value: &str| {
        let mut changed = valid.clone();
        for field in &mut changed {
            if field.0 == name {
                field.1 = value.to_owned();
            }
        }
        changed
    };
    let other_arm = valid[4]
        .1
        .replace("\"arm\":\"executor\"", "\"arm\":\"judge\"");
    for (number, (message, reason)) in [
        (with("body", "{not json"), "malformed"),
        (with("body", "{}"), "schema"),
        (with("type", "task.submitted.v1"), "misrouted"),
        (with("body", &other_arm), "misrouted"),
    ]
    .into_iter()
    .enumerate()
    {
        stage.add(&message);
        let (_, done) = stage.done(number);
        assert_eq!(
            (&done["outcome"], &done["reason"]),
            (&json!("dead"), &json!(reason)),
            "{done}"
        );
        let dead_letter = stage.entry("{l0}:dead", number);
        let body: serde_json::Value = serde_json::from_str(&dead_letter["body"]).unwrap();
        assert_eq!(
            (&body["reason"], &body["group"]),
            (&json!(reason), &json!("executor"))
        );
        assert_eq!(dead_letter["original"], message[4].1);
        assert_eq!(stage.length(STREAM), 0);
    }
    stage.add(&with("id", "unknown"));
    let dead_letter = stage.entry("{l0}:dead", 4);
    assert_eq!(dead_letter["id"], "unknown");
    assert_eq!(
        stage.length("{l0}:steps.done"),
        4,
        "a message of no known step tells nobody"
    );
}

#[test]
fn a_passing_fault_is_tried_again_later_and_given_up_on_at_the_limit() {
    let stage = Stage::new();
    let worker = stage.worker(&[]);
    worker.until_ready();
    std::fs::remove_dir_all(stage.workspaces()).unwrap();
    stage.add(&Stage::message(
        &json!({"language": "python", "code": ""}),
        0,
    ));
    let (_, done) = stage.done(0);
    assert_eq!(
        (&done["outcome"], &done["failures"], &done["next_attempt"]),
        (&json!("retrying"), &json!(1), &json!(2))
    );
    assert_eq!(done["error"]["code"], "internal");
    let next = format!("{LIVE}.2");
    assert_eq!(stage.live(), Some(format!("{{l0}}:schedule {next}")));
    let waiting = stage.scheduled(&next);
    assert_eq!(
        (&waiting["stream"], &waiting["in_flight"]),
        (&json!(STREAM), &json!(LIVE))
    );
    stage.add(&Stage::message(
        &json!({"language": "python", "code": ""}),
        4,
    ));
    let (_, done) = stage.done(1);
    assert_eq!(
        (&done["outcome"], &done["reason"]),
        (&json!("dead"), &json!("failures_exhausted"))
    );
    assert_eq!(stage.length("{l0}:dead"), 1);
}

#[test]
fn the_steps_of_a_killed_worker_are_reclaimed() {
    let stage = Stage::new();
    let worker = stage.worker(&[]);
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 2; echo done"}),
        0,
    ));
    until("the step is taken", || stage.pending() == 1);
    worker.kill();
    assert_eq!(stage.length(STREAM), 1);
    let _second = stage.worker(&[]);
    let (_, done) = stage.done(0);
    assert_eq!(
        (&done["outcome"], &done["delivery"], &done["attempt"]),
        (&json!("succeeded"), &json!(2), &json!(1))
    );
    assert_eq!(stage.length(STREAM), 0);
}

#[test]
fn what_one_lost_worker_leaves_behind_runs_next_to_new_work() {
    let stage = Stage::new();
    let worker = stage.worker(&[]);
    // Longer than this test's time limit: a step that had to run alone would keep the new step waiting.
    let long = json!({"language": "shell", "code": "sleep 90", "limits": {"wall_s": 90}});
    for _ in 0..2 {
        stage.add(&Stage::message(&long, 0));
    }
    until("both slots are taken", || stage.pending() == 2);
    worker.kill();
    let second = stage.worker(&[]);
    until("one of them is reclaimed", || stage.delivery() == 2);
    second.until_metrics("octollm_running_messages{topic=\"arm.executor\"} 1");
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo done"}),
        0,
    ));
    assert_eq!(stage.done(0).1["delivery"], 1);
}

#[test]
fn new_work_starts_next_to_a_suspect_that_goes_on() {
    let stage = Stage::new();
    let long = json!({"language": "shell", "code": "sleep 90", "limits": {"wall_s": 90}});
    stage.add(&Stage::message(&long, 0));
    stage.join_group_from_start("lost");
    stage.read_as("lost");
    stage.deliver_again("lost", 2);
    let _worker = stage.worker(&[]);
    until("it is reclaimed", || stage.delivery() == 3);
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo done"}),
        0,
    ));
    assert_eq!(stage.done(0).1["delivery"], 1);
}

#[test]
fn who_lost_the_lease_stops_and_writes_nothing() {
    let stage = Stage::new();
    let worker = stage.worker(&[]);
    let entry = stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 90", "limits": {"wall_s": 90}}),
        0,
    ));
    until("the step is taken", || stage.pending() == 1);
    stage.steal(&entry);
    // Long before the step would have ended by itself.
    worker.until_metrics("outcome=\"stale\"} 1");
    assert_eq!(
        (stage.length("{l0}:steps.done"), stage.length(STREAM)),
        (0, 1)
    );
}

#[test]
fn an_order_to_end_waits_for_what_runs_and_takes_nothing_more() {
    let stage = Stage::new();
    let mut worker = stage.worker(&[]);
    for _ in 0..3 {
        stage.add(&Stage::message(
            &json!({"language": "shell", "code": "sleep 2; echo done"}),
            0,
        ));
    }
    worker.until_metrics("octollm_running_messages{topic=\"arm.executor\"} 2");
    worker.terminate();
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(
        (stage.length("{l0}:steps.done"), stage.length(STREAM)),
        (2, 1)
    );
    assert_eq!(stage.pending(), 0, "the third was never anybody's");
    assert_eq!(stage.consumers(), 0, "it has left its group");
}

#[test]
fn a_message_that_outlives_its_workers_is_given_up_on_at_the_cap() {
    let stage = Stage::new();
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 60"}),
        0,
    ));
    for delivery in 1..=5 {
        let worker = stage.worker(&[]);
        until("it is taken once more", || stage.delivery() == delivery);
        worker.kill();
    }
    let _sixth = stage.worker(&[]);
    let (_, done) = stage.done(0);
    assert_eq!(
        (&done["outcome"], &done["reason"], &done["delivery"]),
        (&json!("dead"), &json!("deliveries_exhausted"), &json!(5))
    );
    assert_eq!((stage.length("{l0}:dead"), stage.length(STREAM)), (1, 0));
}

#[test]
fn what_outlives_the_drain_is_released_uncharged_and_resumes_elsewhere() {
    // Leases far longer than this test's time limit: only a release lets another worker resume.
    let stage = Stage::with(1800, 600);
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 60"}),
        0,
    ));
    // As many deploys as no step would survive if each cost it a delivery.
    for _ in 0..6 {
        let mut worker = stage.worker(&[("OCTOLLM_EXECUTOR_DRAIN_S", "1")]);
        until("the step is taken", || stage.held_by_workers() == 1);
        assert_eq!(stage.delivery(), 1, "a deploy costs no delivery");
        worker.terminate();
        assert_eq!(worker.wait(), Some(0));
        assert_eq!(stage.deliveries(), [("released".to_owned(), 0)]);
        assert_eq!(stage.consumers(), 0, "it has left its group");
    }
    assert_eq!(
        (stage.length("{l0}:steps.done"), stage.length("{l0}:dead")),
        (0, 0)
    );
}

#[test]
fn a_stop_by_a_fault_of_its_own_charges_what_was_running() {
    let stage = Stage::new();
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 60"}),
        0,
    ));
    let mut worker = stage.worker(&[("TEST_BREAK_LOOP", "control channel=panic")]);
    assert_eq!(worker.wait(), Some(1));
    assert_eq!((stage.delivery(), stage.held_by_workers()), (1, 1));
}

#[test]
fn without_redis_it_says_so_and_works_as_soon_as_there_is_one() {
    let mut stage = Stage::new();
    stage.stop_redis();
    let worker = stage.worker(&[]);
    worker.until_http("/readyz", |code, text| {
        code == 503 && text.contains("Redis is unavailable")
    });
    assert_eq!(worker.get("/healthz").0, 200);
    stage.start_redis();
    worker.until_ready();
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo late"}),
        0,
    ));
    assert_eq!(stage.done(0).1["outcome"], "succeeded");
}

#[test]
fn a_redis_that_lost_everything_is_worked_with_again() {
    let mut stage = Stage::new();
    let worker = stage.worker(&[]);
    worker.until_ready();
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "sleep 1"}),
        0,
    ));
    until("the step is taken", || stage.pending() == 1);
    stage.stop_redis();
    stage.start_redis();
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo new"}),
        0,
    ));
    let (_, done) = stage.done(0);
    assert_eq!(
        done["output"]["value"]["stdout"], "new\n",
        "the lost step's result is discarded: {done}"
    );
    assert_eq!(stage.entry("{l0}:steps.done", 0)["id"], ID);
}

#[test]
fn a_waiting_message_is_admitted_when_a_step_ends() {
    let stage = Stage::new();
    stage.wait(&Stage::message(
        &json!({"language": "python", "code": "print('second')"}),
        0,
    ));
    let _worker = stage.worker(&[]);
    stage.add(&Stage::message(
        &json!({"language": "python", "code": "print('first')"}),
        0,
    ));
    for (number, said) in ["first\n", "second\n"].into_iter().enumerate() {
        let (_, done) = stage.done(number);
        assert_eq!(done["output"]["value"]["stdout"], said, "{done}");
    }
    until("nothing is left", || stage.length(STREAM) == 0);
}
