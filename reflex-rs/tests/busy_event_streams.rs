//! Event streams while the API or the limit is busy: one limit decides, and a client that must wait comes back by itself.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::time::Duration;

use common::api::Api;
use common::events::Events;
use common::history::{accepted, event};
use common::{until, Redis, Reflex};
use serde_json::json;

const ACCEPT: &str = "accept: text/event-stream\r\n";

fn path(task: &str) -> String {
    format!("/v1/tasks/{task}/events")
}

fn reflex_with(redis: &Redis, api: &Api, more: &[(&str, &str)]) -> Reflex {
    let settings = [&[("OCTOLLM_API_URL", api.url.as_str())], more].concat();
    Reflex::ready(redis, &settings)
}

#[test]
fn more_streams_than_reads_of_the_api_can_begin_at_once() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = reflex_with(&redis, &api, &[("OCTOLLM_REFLEX_MAX_FORWARDS", "2")]);
    let task = accepted(&reflex);
    let page = json!({"items": [event(&task, 1, 1, "accepted")], "next": null});
    let history = format!("/v1/tasks/{task}/events");
    api.answer_late(&history, 200, &page, Duration::from_millis(200));
    let open = || Events::open(&reflex, &path(&task), ACCEPT);
    let streams: Vec<Events> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..12).map(|_| scope.spawn(open)).collect();
        opening.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for mut stream in streams {
        assert_eq!(stream.status, 200);
        assert_eq!(stream.next_with_id().unwrap().id, "1-1");
    }
}

#[test]
fn a_browser_comes_back_when_the_limit_is_reached() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_REFLEX_MAX_EVENT_STREAMS", "1")]);
    let task = accepted(&reflex);
    let first = Events::open(&reflex, &path(&task), ACCEPT);
    assert_eq!(first.status, 200);
    let refused = reflex.get(&path(&task));
    assert_eq!(
        (refused.status, refused.problem().0),
        (503, "overloaded".into())
    );
    let mut delays = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let answer = reflex.request("GET", &path(&task), ACCEPT, b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.contains("content-type: text/event-stream"));
        assert!(answer.body.contains("event: unavailable") && answer.body.contains("overloaded"));
        let delay = answer.body.split("retry: ").nth(1).unwrap();
        let delay: u64 = delay.split('\n').next().unwrap().trim().parse().unwrap();
        assert!((3000..=10_000).contains(&delay), "{delay}");
        delays.insert(delay);
    }
    assert!(delays.len() > 1, "all come back at once: {delays:?}");
    drop(first);
    until("its slot is free", || {
        let answer = reflex.get("/metrics").body;
        answer.contains("octollm_event_streams 0").then_some(())
    });
}

#[test]
fn a_stream_goes_on_while_the_api_is_unavailable() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = reflex_with(&redis, &api, &[]);
    let task = accepted(&reflex);
    let page = json!({"items": [event(&task, 1, 1, "accepted")], "next": null});
    api.answer(&path(&task), 200, &page);
    let mut stream = Events::open(&reflex, &path(&task), ACCEPT);
    assert_eq!(stream.next().unwrap().id, "1-1");
    // Its status is gone, so the API is asked, which is busy.
    let known = format!("/v1/tasks/{task}");
    api.answer(&known, 503, &json!({}));
    let _: i64 = redis.ask(&format!("DEL|{{l0}}:status:{task}"));
    until("the API was asked twice", || {
        let asked = api.requests().into_iter().filter(|one| one.path == known);
        (asked.count() >= 2).then_some(())
    });
    redis.publish(&event(&task, 1, 2, "planned"));
    assert_eq!(stream.next().unwrap().id, "1-2");
}
