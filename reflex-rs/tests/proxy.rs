//! Reads that the API answers, through the reflex, from a real socket.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::io::Write;
use std::time::Duration;

use common::api::Api;
use common::{free_port, until, Answer, Redis, Reflex};
use serde_json::json;

#[test]
fn whatever_else_is_read_is_passed_on_in_the_callers_name_alone() {
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
        api.tell(path, 200, &json!({"path": path}));
        let headers = "octollm-tenant: other\r\ncookie: x\r\naccept: application/json\r\n";
        let answer = reflex.request("GET", path, headers, b"");
        assert_eq!((answer.status, answer.json()), (200, json!({"path": path})));
        assert!(
            answer.head.contains("content-type: application/json"),
            "{answer:?}"
        );
        assert!(!answer.head.contains("x-inner"), "{answer:?}");
        let asked = api.asked().pop().unwrap();
        assert_eq!(
            (asked.path.as_str(), asked.tenants),
            (path, vec!["default".to_owned()])
        );
        assert!(
            asked.headers.contains(&"accept".to_owned())
                && !asked.headers.contains(&"cookie".to_owned())
        );
    }
    let many = json!({"text": "y".repeat(3_000_000)});
    api.tell("/v1/many", 200, &many);
    assert_eq!(reflex.get("/v1/many").json_of_chunks(), many);
    api.tell("/v1/refused", 422, &json!({"detail": "no"}));
    assert_eq!(reflex.get("/v1/refused").status, 422);
    assert_eq!(reflex.get("/v1/unknown").status, 404);
    // What is no read is nobody's, and what is not below /v1/ is not the API's.
    let asked = api.asked().len();
    assert_eq!(reflex.request("POST", "/v1/costs", "", b"").status, 405);
    assert_eq!(reflex.get("/else").status, 404);
    assert_eq!(api.asked().len(), asked);
}

#[test]
fn without_an_api_it_is_said_so_and_an_absent_one_is_a_matter_of_time() {
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
        "the doors need no API"
    );
}

#[test]
fn only_so_many_reads_wait_for_the_api_at_once() {
    let redis = Redis::start();
    let api = Api::start();
    let settings = [
        ("OCTOLLM_API_URL", api.url.as_str()),
        ("OCTOLLM_REFLEX_MAX_FORWARDS", "1"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    api.tell_late("/v1/slow", 200, &json!({}), Duration::from_secs(2));
    let mut slow = reflex.connect();
    let request = b"GET /v1/slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    slow.write_all(request).unwrap();
    until("the slow one is on its way", || {
        (!api.asked().is_empty()).then_some(())
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
fn an_address_that_cannot_be_used_refuses_to_start() {
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
