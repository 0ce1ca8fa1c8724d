//! Drops dead letters on a real Redis: the message to the archive and every answer.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use common::api::Api;
use common::{Answer, Redis, Reflex};
use contracts::events::{read, DeadDrop};
use serde_json::{json, Value};

const DEAD: &str = "{l0}:dead";
const DEAD_LETTER: &str = "/v1/dead-letters/7";

fn drop_dead_letter(reflex: &Reflex, path: &str) -> Answer {
    reflex.request("DELETE", path, "", b"")
}

fn dead_letter(dropped_at: Option<&str>) -> Value {
    let mut dead_letter = json!({"id": 7, "reason": "schema", "message": "no"});
    if let Some(at) = dropped_at {
        dead_letter["dropped_at"] = at.into();
    }
    dead_letter
}

#[test]
fn a_known_dead_letter_is_dropped_by_the_archive() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    api.answer(DEAD_LETTER, 200, &dead_letter(None));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = reflex.request(
        "DELETE",
        DEAD_LETTER,
        &format!("traceparent: {trace}\r\n"),
        b"",
    );
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({"id": 7, "accepted": true}))
    );
    let entries = redis.entries(DEAD);
    let entry = &entries[0];
    assert_eq!(
        (
            entry.field("type"),
            entry.field("id"),
            entry.field("tenant")
        ),
        ("dead.drop.v1", "", "default")
    );
    assert!(entry.field("traceparent").starts_with(&trace[..35]));
    let message: DeadDrop = read(entry.field("body").as_bytes()).unwrap();
    assert_eq!(
        (message.dead_letter.get(), message.tenant.as_str()),
        (7, "default")
    );
    assert_eq!(api.requests()[0].tenants, ["default"]);
    let asked = "octollm_requests_total{route=\"drop_dead_letter\",outcome=\"accepted\"}";
    assert_eq!(reflex.metric(asked), 1);
}

#[test]
fn one_that_was_dropped_before_is_unchanged() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    let at = "2026-01-31T12:00:00.000Z";
    api.answer(DEAD_LETTER, 200, &dead_letter(Some(at)));
    let answer = drop_dead_letter(&reflex, DEAD_LETTER);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"id": 7, "accepted": false, "dropped_at": at}))
    );
    assert_eq!(redis.length(DEAD), 0);
    let left = "octollm_requests_total{route=\"drop_dead_letter\",outcome=\"unchanged\"}";
    assert_eq!(reflex.metric(left), 1);
}

#[test]
fn an_invalid_unknown_or_another_tenants_dead_letter_does_not_exist() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    // The API answers 404 for an unknown dead letter as well as for another tenant's.
    let absent = drop_dead_letter(&reflex, DEAD_LETTER);
    assert_eq!(
        (absent.status, absent.problem().0.as_str()),
        (404, "not_found")
    );
    assert_eq!(api.requests().len(), 1);
    for odd in [
        "0",
        "07",
        "-7",
        "7.0",
        "+7",
        "seven",
        "%37%2f8",
        "%ff",
        "9007199254740992",
        "99999999999999999999",
    ] {
        let answer = drop_dead_letter(&reflex, &format!("/v1/dead-letters/{odd}"));
        assert_eq!(answer.status, 404, "{odd}");
    }
    assert_eq!(
        api.requests().len(),
        1,
        "the API is not called for an id that cannot exist"
    );
    assert_eq!(redis.length(DEAD), 0);
}

#[test]
fn without_an_api_nothing_is_dropped() {
    let redis = Redis::start();
    let alone = Reflex::ready(&redis, &[]);
    let answer = drop_dead_letter(&alone, DEAD_LETTER);
    assert_eq!(
        (answer.status, answer.problem().0.as_str()),
        (404, "api_not_configured")
    );
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    for (status, body) in [(500, json!({})), (200, json!({"dropped_at": 5}))] {
        api.answer(DEAD_LETTER, status, &body);
        let answer = drop_dead_letter(&reflex, DEAD_LETTER);
        assert_eq!(
            (answer.status, answer.problem().0.as_str()),
            (503, "api_unavailable")
        );
    }
    assert_eq!(redis.length(DEAD), 0);
}

#[test]
fn a_full_redis_is_reported_and_a_retry_succeeds() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    api.answer(DEAD_LETTER, 200, &dead_letter(None));
    let _: String = redis.ask(&format!("SET|{DEAD}|no stream"));
    let answer = drop_dead_letter(&reflex, DEAD_LETTER);
    assert_eq!(
        (answer.status, answer.problem().0.as_str()),
        (500, "internal")
    );
    let _: i64 = redis.ask(&format!("DEL|{DEAD}"));
    assert_eq!(drop_dead_letter(&reflex, DEAD_LETTER).status, 202);
    assert_eq!(redis.length(DEAD), 1);
}
