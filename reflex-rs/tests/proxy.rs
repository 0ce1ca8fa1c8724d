//! Reads that the reflex proxies to the API, over a real socket.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::io::Write;
use std::time::Duration;

use common::api::Api;
use common::{free_port, until, Answer, Redis, Reflex};
use serde_json::json;

#[test]
fn other_reads_are_proxied_on_behalf_of_the_caller_only() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    let task = "/v1/tasks/l0-01h00000000000000000000000";
    let steps = format!("{task}/steps");
    for path in [
        "/v1/tasks?state=failed&limit=2",
        task,
        &steps,
        "/v1/dead-letters",
        "/v1/costs",
        "/v1/openapi.json",
    ] {
        api.answer(path, 200, &json!({"path": path}));
        let headers =
            "octollm-caller: v1;exp=1;tenant=other\r\ncookie: x\r\naccept: application/json\r\n";
        let answer = reflex.request("GET", path, headers, b"");
        assert_eq!((answer.status, answer.json()), (200, json!({"path": path})));
        assert!(
            answer.head.contains("content-type: application/json"),
            "{answer:?}"
        );
        assert!(!answer.head.contains("x-inner"), "{answer:?}");
        let received = api.requests().pop().unwrap();
        assert_eq!(
            (received.path.as_str(), received.tenants),
            (path, vec!["default".to_owned()])
        );
        assert!(
            received.headers.contains(&"accept".to_owned())
                && !received.headers.contains(&"cookie".to_owned())
        );
    }
    let many = json!({"text": "y".repeat(3_000_000)});
    api.answer("/v1/many", 200, &many);
    assert_eq!(reflex.get("/v1/many").json_of_chunks(), many);
    api.answer("/v1/refused", 422, &json!({"detail": "no"}));
    assert_eq!(reflex.get("/v1/refused").status, 422);
    assert_eq!(reflex.get("/v1/unknown").status, 404);
    // Only reads below /v1/ are proxied.
    let received = api.requests().len();
    assert_eq!(reflex.request("POST", "/v1/costs", "", b"").status, 405);
    assert_eq!(reflex.get("/else").status, 404);
    assert_eq!(api.requests().len(), received);
}

#[test]
fn commands_about_callbacks_are_forwarded_as_such() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    for path in [
        "/v1/callbacks/7/redeliver",
        "/v1/callback-endpoints/7/enable",
    ] {
        assert_eq!(reflex.request("POST", path, "", b"").status, 404);
        api.answer(path, 202, &json!({"accepted": true}));
        let answer = reflex.request("POST", path, "", b"");
        assert_eq!(
            (answer.status, answer.json()),
            (202, json!({"accepted": true}))
        );
        let received = api.requests().pop().unwrap();
        assert_eq!(
            (received.method.as_str(), received.path.as_str()),
            ("POST", path)
        );
        assert_eq!(received.tenants, ["default"]);
        assert_eq!(reflex.get(path).status, 405);
    }
}

#[test]
fn what_the_api_refuses_is_a_fault_of_the_configuration() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    for status in [401, 403] {
        api.answer("/v1/costs", status, &json!({}));
        let answer = reflex.get("/v1/costs");
        assert_eq!(
            (answer.status, answer.problem().0.as_str()),
            (503, "api_not_configured")
        );
        let detail = answer.json()["detail"].clone();
        assert!(
            detail.as_str().unwrap().contains("OCTOLLM_API_SECRET"),
            "{detail}"
        );
    }
}

#[test]
fn a_status_has_its_metadata_and_on_request_the_submission_from_the_api() {
    let redis = Redis::start();
    let task = "l0-01h00000000000000000000000";
    let path = format!("/v1/tasks/{task}");
    let with_submission = format!("{path}?include=submission");
    redis.make_status(task, "default", "running");
    redis.ask::<i64>(&format!(
        "HSET|{{l0}}:status:{task}|metadata|{{\"order\":\"A-17\"}}"
    ));
    let alone = Reflex::ready(&redis, &[]);
    let shown = alone.get(&path);
    assert_eq!(shown.json()["metadata"], json!({"order": "A-17"}));
    let answer = alone.get(&with_submission);
    assert_eq!(
        (answer.status, answer.problem().0),
        (404, "api_not_configured".into())
    );
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    let whole = json!({"task": task, "submission": {"goal": "x"}});
    api.answer(&with_submission, 200, &whole);
    assert_eq!(reflex.get(&with_submission).json(), whole);
    assert_eq!(reflex.get(&path).json()["task"], task);
    assert_eq!(api.requests().len(), 1);
}

#[test]
fn a_status_whose_result_is_too_large_for_redis_comes_from_the_api() {
    let redis = Redis::start();
    let task = "l0-01h00000000000000000000000";
    let path = format!("/v1/tasks/{task}");
    redis.make_status(task, "default", "succeeded");
    redis.ask::<i64>(&format!("HSET|{{l0}}:status:{task}|result_bytes|98000"));
    let alone = Reflex::ready(&redis, &[]).get(&path);
    assert_eq!(
        (alone.status, alone.json()["result_bytes"].as_i64()),
        (200, Some(98_000))
    );
    // Without an API the answer says where the result is.
    let result_at = alone.json()["result_at"].clone();
    assert_eq!(result_at["api_path"], path);
    let detail = result_at["detail"].as_str().unwrap();
    assert!(detail.contains("octollm api") && detail.contains("OCTOLLM_API_URL"));
    redis.make_status(task, "default", "succeeded");
    redis.ask::<i64>(&format!("HDEL|{{l0}}:status:{task}|result_bytes"));
    let small = Reflex::ready(&redis, &[]).get(&path).json();
    assert!(small.get("result_at").is_none(), "{small}");
    redis.ask::<i64>(&format!("HSET|{{l0}}:status:{task}|result_bytes|98000"));
    let api = Api::start();
    let whole = json!({"task": task, "result": {"answer": "x".repeat(98_000)}});
    api.answer(&path, 200, &whole);
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    assert_eq!(reflex.get(&path).json_of_chunks(), whole);
    redis.make_status(task, "other", "succeeded");
    redis.ask::<i64>(&format!("HSET|{{l0}}:status:{task}|result_bytes|98000"));
    assert_eq!(reflex.get(&path).status, 404);
    assert_eq!(api.requests().len(), 1);
}

#[test]
fn a_missing_configuration_and_an_unavailable_api_have_different_codes() {
    let redis = Redis::start();
    let without = Reflex::ready(&redis, &[]);
    let answer = without.get("/v1/costs");
    assert_eq!(
        (answer.status, answer.problem().0.as_str()),
        (404, "api_not_configured")
    );
    assert!(answer.json()["detail"]
        .as_str()
        .unwrap()
        .contains("OCTOLLM_API_URL"));
    let url = format!("http://127.0.0.1:{}", free_port());
    let absent = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &url)]);
    for path in ["/v1/costs", "/v1/tasks/l0-01h00000000000000000000000"] {
        let answer = absent.get(path);
        assert_eq!(
            (answer.status, answer.problem().0.as_str()),
            (503, "api_unavailable")
        );
        assert!(answer.head.contains("retry-after: "), "{answer:?}");
    }
    assert_eq!(
        absent.post(br#"{"goal": "x"}"#, "").status,
        202,
        "submissions need no API"
    );
}

#[test]
fn the_number_of_reads_that_wait_for_the_api_is_limited() {
    let redis = Redis::start();
    let api = Api::start();
    let settings = [
        ("OCTOLLM_API_URL", api.url.as_str()),
        ("OCTOLLM_REFLEX_MAX_FORWARDS", "1"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    api.answer_late("/v1/slow", 200, &json!({}), Duration::from_secs(2));
    let mut slow = reflex.connect();
    let request = b"GET /v1/slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    slow.write_all(request).unwrap();
    until("the slow one is on its way", || {
        (!api.requests().is_empty()).then_some(())
    });
    let second = reflex.get("/v1/costs");
    assert_eq!(
        (second.status, second.problem().0.as_str()),
        (503, "overloaded")
    );
    assert_eq!(Answer::read(&mut slow).status, 200);
    assert_eq!(
        reflex.get("/v1/costs").status,
        404,
        "its slot is free again"
    );
}

#[test]
fn an_invalid_api_address_prevents_the_start() {
    for url in [
        "https://127.0.0.1:1",
        "http://127.0.0.1:1/api",
        "http://user:pw@127.0.0.1:1",
        "http://",
    ] {
        let ended = common::run(&[], &[("OCTOLLM_API_URL", url)]);
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{url}: {error}");
        assert!(
            error.contains("api.url") && !error.contains("pw"),
            "{error}"
        );
    }
}
