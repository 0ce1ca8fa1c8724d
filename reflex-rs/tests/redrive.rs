//! Requests another run of a task on a real Redis: the message and every answer.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use common::api::Api;
use common::history::accepted;
use common::{Answer, Redis, Reflex};
use contracts::events::{read, TaskRedrive};
use serde_json::json;

const TASK: &str = "l0-01h00000000000000000000000";
const JSON: &str = "content-type: application/json\r\n";
const DONE: &str = "{l0}:steps.done";

fn redrive(reflex: &Reflex, task: &str, body: &str) -> Answer {
    let headers = if body.is_empty() { "" } else { JSON };
    let path = format!("/v1/tasks/{task}/runs");
    reflex.request("POST", &path, headers, body.as_bytes())
}

#[test]
fn a_task_that_failed_or_expired_can_run_again() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    for (number, state) in ["failed", "expired"].into_iter().enumerate() {
        redis.make_status(TASK, "default", state);
        redis.set_status(TASK, "run|2");
        let answer = redrive(&reflex, TASK, "");
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(
            answer.json(),
            json!({"task": TASK, "state": state, "run": 2, "accepted": true})
        );
        // What is left of the earlier run is stopped, and nothing of the next one.
        let ended: Vec<String> = redis.ask("ZRANGE|{l0}:ended-runs|0|-1");
        assert_eq!(ended, [format!("{TASK}.2 default")]);
        let entry = &redis.entries(DONE)[number];
        assert_eq!(
            (
                entry.field("type"),
                entry.field("id"),
                entry.field("tenant")
            ),
            ("task.redrive.v1", TASK, "default")
        );
        assert_eq!(entry.field("traceparent").len(), 55);
        let message: TaskRedrive = read(entry.field("body").as_bytes()).unwrap();
        assert_eq!((message.task.as_str(), message.run.get()), (TASK, 2));
        assert_eq!(message.tenant.as_str(), "default");
    }
    let name = "octollm_requests_total{route=\"redrive\",outcome=\"accepted\"}";
    assert_eq!(reflex.metric(name), 2);
}

#[test]
fn several_requests_after_one_run_open_the_same_run() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    redis.make_status(TASK, "default", "failed");
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    for _ in 0..3 {
        let path = format!("/v1/tasks/{TASK}/runs");
        let headers = format!("{JSON}{trace}");
        let answer = reflex.request("POST", &path, &headers, br#"{"run": 1}"#);
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    for entry in redis.entries(DONE) {
        assert_eq!(entry.body()["run"], 1, "which is opened once");
        assert!(entry
            .field("traceparent")
            .contains("4bf92f3577b34da6a3ce929d0e0e4736"));
    }
    // The orchestrator has opened the run, so a request that still names the run before it is answered with that.
    redis.set_status(TASK, "state|running|run|2");
    let late = redrive(&reflex, TASK, r#"{"run": 1}"#);
    assert_eq!(
        (late.status, &late.json()["accepted"]),
        (200, &json!(false))
    );
    assert_eq!(
        late.json()["detail"],
        "run 2 has already followed run 1 and is running"
    );
    assert_eq!(redis.length(DONE), 3);
}

#[test]
fn a_task_that_has_not_failed_is_unchanged_and_the_answer_says_why() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let fresh = accepted(&reflex);
    let left = redrive(&reflex, &fresh, "{}");
    assert_eq!(
        (left.status, left.json()),
        (
            200,
            json!({"task": fresh, "state": "accepted", "run": 1, "accepted": false, "detail": "run 1 has not ended"})
        )
    );
    for (state, why) in [
        ("running", "has not ended"),
        ("succeeded", "has succeeded"),
        ("cancelled", "submit it again"),
        ("rejected", "submit another one"),
    ] {
        redis.make_status(TASK, "default", state);
        let left = redrive(&reflex, TASK, "");
        let body = left.json();
        assert_eq!((left.status, &body["accepted"]), (200, &json!(false)));
        assert!(body["detail"].as_str().unwrap().contains(why), "{body}");
    }
    assert_eq!(redis.length(DONE), 0);
    let left = "octollm_requests_total{route=\"redrive\",outcome=\"unchanged\"}";
    assert_eq!(reflex.metric(left), 5);
}

#[test]
fn an_unknown_or_another_tenants_task_does_not_exist() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    for task in [TASK, "odd"] {
        let unknown = redrive(&reflex, task, "");
        assert_eq!(
            (unknown.status, unknown.problem().0.as_str()),
            (404, "not_found")
        );
    }
    redis.make_status(TASK, "other", "failed");
    assert_eq!(redrive(&reflex, TASK, "").status, 404);
    assert_eq!(redis.length(DONE), 0);
}

#[test]
fn an_invalid_request_opens_no_run() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    redis.make_status(TASK, "default", "failed");
    for (query, headers, body, status, field) in [
        ("", JSON, "{", 400, "body"),
        ("", JSON, "[]", 422, "body"),
        ("", JSON, r#"{"run": 1, "run": 1}"#, 400, "body"),
        ("", JSON, r#"{"why": "x"}"#, 422, "why"),
        ("", JSON, r#"{"run": "1"}"#, 422, "run"),
        ("", JSON, r#"{"run": 0}"#, 422, "run"),
        ("", JSON, r#"{"run": 2}"#, 422, "run"),
        ("", JSON, r#"{"run": 2147483647}"#, 422, "run"),
        ("", "", "{}", 415, "Content-Type"),
        ("?run=1", "", "", 422, "query"),
    ] {
        let path = format!("/v1/tasks/{TASK}/runs{query}");
        let answer = reflex.request("POST", &path, headers, body.as_bytes());
        assert_eq!(
            (answer.status, answer.problem().1.as_str()),
            (status, field),
            "{query} {body}"
        );
    }
    assert_eq!(redis.length(DONE), 0);
}

#[test]
fn a_task_that_only_the_api_knows_can_run_again() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    let url = format!("/v1/tasks/{TASK}");
    assert_eq!(redrive(&reflex, TASK, "").status, 404);
    api.answer(
        &url,
        200,
        &json!({"task": TASK, "state": "failed", "run": 3}),
    );
    let accepted = redrive(&reflex, TASK, "");
    assert_eq!((accepted.status, &accepted.json()["run"]), (202, &json!(3)));
    assert_eq!(redis.entries(DONE)[0].body()["run"], 3);
    assert!(api
        .requests()
        .iter()
        .all(|request| request.tenants == ["default"]));
    api.answer(
        &url,
        200,
        &json!({"task": TASK, "state": "succeeded", "run": 3}),
    );
    let left = redrive(&reflex, TASK, "");
    assert_eq!(
        (left.status, &left.json()["accepted"]),
        (200, &json!(false))
    );
    api.answer(&url, 500, &json!({}));
    let away = redrive(&reflex, TASK, "");
    assert_eq!(
        (away.status, away.problem().0.as_str()),
        (503, "api_unavailable")
    );
    assert_eq!(redis.length(DONE), 1);
}
