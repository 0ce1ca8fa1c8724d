//! `GET /v1/tasks/{id}?wait=30s`: answers as soon as the task ends.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test
#![allow(clippy::disallowed_methods)] // threads of a test

mod common;

use std::time::{Duration, Instant};

use common::api::Api;
use common::history::{accepted, event};
use common::{until, Redis, Reflex};
use serde_json::json;

#[test]
fn a_waiting_read_is_answered_when_the_task_ends() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    let path = format!("/v1/tasks/{task}?wait=55s");
    let (answers, took) = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| reflex.get(&path))).collect();
        until("all wait", || {
            (reflex.metric("octollm_http_in_flight") == 4).then_some(())
        });
        redis.publish(&event(&task, 1, 1, "planned"));
        redis.set_status(&task, "state|succeeded|version|2");
        let ended = Instant::now();
        redis.publish(&event(&task, 1, 2, "finished"));
        let answers: Vec<_> = waiting.into_iter().map(|one| one.join().unwrap()).collect();
        (answers, ended.elapsed())
    });
    for answer in answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["state"], "succeeded");
    }
    assert!(took < Duration::from_secs(10), "{took:?}");
    // It has ended, so nothing is waited for.
    let begun = Instant::now();
    assert_eq!(reflex.get(&path).json()["state"], "succeeded");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_wait_ends_with_the_state_that_the_task_has_then() {
    let redis = Redis::start();
    let mut reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    let begun = Instant::now();
    let answer = reflex.get(&format!("/v1/tasks/{task}?wait=1s"));
    assert_eq!(answer.json()["state"], "accepted", "{answer:?}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let unknown = "/v1/tasks/l0-01h00000000000000000000000?wait=55s";
    assert_eq!(reflex.get(unknown).status, 404);
    redis.make_status("l0-01h00000000000000000000000", "other", "running");
    assert_eq!(reflex.get(unknown).status, 404, "another tenant's");
    for query in ["wait=56s", "wait=soon"] {
        let answer = reflex.get(&format!("/v1/tasks/{task}?{query}"));
        let problem = ("schema".into(), "wait".into());
        assert_eq!((answer.status, answer.problem()), (422, problem));
    }
    // The order to stop ends a wait as well.
    let path = format!("/v1/tasks/{task}?wait=55s");
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| reflex.get(&path));
        until("it waits", || {
            (reflex.metric("octollm_http_in_flight") == 2).then_some(())
        });
        reflex.request_stop();
        waiting.join().unwrap()
    });
    assert_eq!(answer.json()["state"], "accepted");
    assert_eq!(reflex.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(40));
}

#[test]
fn waiting_reads_and_event_streams_share_a_limit() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_REFLEX_MAX_EVENT_STREAMS", "1")]);
    let task = accepted(&reflex);
    let path = format!("/v1/tasks/{task}?wait=55s");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| reflex.get(&path));
        until("it waits", || {
            (reflex.metric("octollm_http_in_flight") == 2).then_some(())
        });
        let second = reflex.get(&path);
        assert_eq!(
            (second.status, second.problem().0),
            (503, "overloaded".into())
        );
        assert!(second.head.contains("retry-after: "));
        redis.set_status(&task, "state|failed|version|2");
        redis.publish(&event(&task, 1, 1, "finished"));
        assert_eq!(waiting.join().unwrap().json()["state"], "failed");
    });
}

#[test]
fn the_api_never_sees_the_wait() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    let path = "/v1/tasks/l0-01h00000000000000000000000";
    api.answer(path, 200, &json!({"state": "succeeded", "run": 1}));
    let answer = reflex.get(&format!("{path}?wait=55s"));
    assert_eq!(answer.json_of_chunks()["state"], "succeeded", "{answer:?}");
    assert!(api.requests().iter().all(|one| one.path == path));
}
