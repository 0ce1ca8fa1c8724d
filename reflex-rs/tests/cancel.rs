//! Cancels tasks on a real Redis: the marker, the message and every answer.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use common::api::Api;
use common::history::accepted;
use common::{Redis, Reflex};
use contracts::events::{read, TaskCancel};
use serde_json::json;

const TASK: &str = "l0-01h00000000000000000000000";
const JSON: &str = "content-type: application/json\r\n";

#[test]
fn what_runs_of_a_task_is_ended_and_orchestrator_and_workers_are_notified() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut control = connection.as_pubsub();
    control.subscribe("{l0}:control").unwrap();
    control.set_read_timeout(Some(common::MAX_WAIT)).unwrap();
    let body = br#"{"detail": "ada@example.org is no longer interested"}"#;
    let answer = reflex.request("DELETE", &format!("/v1/tasks/{task}"), JSON, body);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json(), json!({"task": task, "state": "accepted"}));
    let notified: String = control.get_message().unwrap().get_payload().unwrap();
    assert_eq!(notified, format!("ended {task}.1"));
    let now: (i64, i64) = redis.ask("TIME");
    let until: f64 = redis.ask(&format!("ZSCORE|{{l0}}:ended-runs|{task}.1 default"));
    #[allow(clippy::cast_possible_truncation)] // seconds
    let ttl = until as i64 - now.0;
    assert!((604_000..=604_800).contains(&ttl), "{ttl}");
    let entries = redis.entries("{l0}:steps.done");
    assert_eq!(entries[0].field("type"), "task.cancel.v1");
    assert_eq!(entries[0].field("id"), task);
    assert_eq!(entries[0].field("tenant"), "default");
    assert_eq!(entries[0].field("traceparent").len(), 55);
    let message: TaskCancel = read(entries[0].field("body").as_bytes()).unwrap();
    assert_eq!(message.task.as_str(), task);
    assert_eq!(
        message.detail.unwrap().as_str(),
        "[email] is no longer interested"
    );
    // A second request notifies again. The query can give the reason, too.
    let again = reflex.request(
        "DELETE",
        &format!("/v1/tasks/{task}?detail=once+more"),
        "",
        b"",
    );
    assert_eq!(again.status, 202);
    assert_eq!(
        redis.entries("{l0}:steps.done")[1].body()["detail"],
        "once more"
    );
    assert_eq!(
        reflex.metric("octollm_requests_total{route=\"cancel\",outcome=\"accepted\"}"),
        2
    );
}

#[test]
fn an_ended_task_is_answered_with_its_state_and_another_tenants_does_not_exist() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let url = format!("/v1/tasks/{TASK}");
    for path in [url.as_str(), "/v1/tasks/odd"] {
        let unknown = reflex.request("DELETE", path, "", b"");
        assert_eq!(
            (unknown.status, unknown.problem().0.as_str()),
            (404, "not_found")
        );
    }
    redis.make_status(TASK, "other", "running");
    assert_eq!(reflex.request("DELETE", &url, "", b"").status, 404);
    redis.make_status(TASK, "default", "failed");
    let ended = reflex.request("DELETE", &url, "", b"");
    assert_eq!(
        (ended.status, ended.json()),
        (200, json!({"task": TASK, "state": "failed"}))
    );
    // Nobody is asked to end it again, and what is left of its newest run is stopped.
    assert_eq!(redis.length("{l0}:steps.done"), 0);
    let ended: Vec<String> = redis.ask("ZRANGE|{l0}:ended-runs|0|-1");
    assert_eq!(ended, [format!("{TASK}.1 default")]);
}

#[test]
fn an_invalid_request_marks_nothing() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    let long = format!(r#"{{"detail": "{}"}}"#, "y".repeat(2001));
    for (query, headers, body, status, field) in [
        ("", JSON, "{", 400, "body"),
        ("", JSON, "[]", 422, "body"),
        ("", JSON, r#"{"why": "x"}"#, 422, "why"),
        ("", JSON, r#"{"detail": 1}"#, 422, "detail"),
        ("", JSON, &long, 422, "detail"),
        ("", "", "{}", 415, "Content-Type"),
        ("?why=x", "", "", 422, "query"),
        ("?detail=a&detail=b", "", "", 422, "query"),
        ("?detail=%00", "", "", 422, "detail"),
        ("?detail=a", JSON, r#"{"detail": "b"}"#, 422, "detail"),
    ] {
        let answer = reflex.request(
            "DELETE",
            &format!("/v1/tasks/{task}{query}"),
            headers,
            body.as_bytes(),
        );
        assert_eq!(
            (answer.status, answer.problem().1.as_str()),
            (status, field),
            "{query} {body:.40}"
        );
    }
    assert_eq!(redis.length("{l0}:steps.done"), 0);
}

#[test]
fn a_task_that_only_the_api_knows_is_stopped_even_if_it_has_ended() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    let url = format!("/v1/tasks/{TASK}");
    assert_eq!(reflex.request("DELETE", &url, "", b"").status, 404);
    api.answer(
        &url,
        200,
        &json!({"task": TASK, "state": "succeeded", "run": 3}),
    );
    let ended = reflex.request("DELETE", &url, "", b"");
    assert_eq!(
        (ended.status, &ended.json()["state"]),
        (200, &json!("succeeded"))
    );
    let ended: Vec<String> = redis.ask("ZRANGE|{l0}:ended-runs|0|-1");
    assert_eq!(ended, [format!("{TASK}.3 default")]);
    api.answer(
        &url,
        200,
        &json!({"task": TASK, "state": "running", "run": 1}),
    );
    let marked = reflex.request("DELETE", &url, "", b"");
    assert_eq!(
        (marked.status, &marked.json()["state"]),
        (202, &json!("running"))
    );
    assert_eq!(redis.length("{l0}:steps.done"), 2);
    assert!(api
        .requests()
        .iter()
        .all(|request| request.tenants == ["default"]));
    api.answer(&url, 500, &json!({}));
    let away = reflex.request("DELETE", &url, "", b"");
    assert_eq!(
        (away.status, away.problem().0.as_str()),
        (503, "api_unavailable")
    );
}
