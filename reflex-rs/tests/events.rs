//! Event streams on a real Redis: history, then new events, each once and in order, until the run finishes.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::time::{Duration, Instant};

use common::api::Api;
use common::events::Events;
use common::history::{accepted, event};
use common::{until, Redis, Reflex};
use serde_json::json;

const TASK: &str = "l0-01h00000000000000000000000";

fn open(reflex: &Reflex, task: &str, headers: &str) -> Events {
    Events::open(reflex, &format!("/v1/tasks/{task}/events"), headers)
}

fn after(id: &str) -> String {
    format!("last-event-id: {id}\r\n")
}

fn ended(redis: &Redis, task: &str) {
    redis.set_status(task, "state|succeeded");
}

#[test]
fn the_history_and_then_new_events_until_the_task_has_finished() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    redis.publish(&event(&task, 1, 1, "accepted"));
    redis.publish(&event(TASK, 1, 1, "accepted"));
    redis.publish(&event(&task, 1, 2, "planned"));
    let mut view = open(&reflex, &task, "");
    assert_eq!(view.status, 200);
    for line in ["content-type: text/event-stream", "cache-control: no-store"] {
        assert!(view.head.contains(line), "{}", view.head);
    }
    let first = view.next().unwrap();
    assert_eq!(
        (first.id.as_str(), first.name.as_str()),
        ("1-1", "accepted")
    );
    assert_eq!(first.data, event(&task, 1, 1, "accepted"));
    assert_eq!(view.next().unwrap().id, "1-2");
    assert_eq!(reflex.metric("octollm_event_streams"), 1);
    redis.publish(&event(&task, 1, 3, "step_sent"));
    assert_eq!(view.next().unwrap().id, "1-3");
    // Duplicates, late events and those of another task or tenant are not sent.
    let mut foreign = event(&task, 1, 4, "planned");
    foreign["tenant"] = "other".into();
    for other in [
        event(&task, 1, 3, "step_sent"),
        event(&task, 1, 2, "planned"),
        event(TASK, 1, 9, "planned"),
        foreign,
    ] {
        redis.publish(&other);
    }
    redis.publish(&event(&task, 1, 4, "finished"));
    ended(&redis, &task);
    let last = view.next().unwrap();
    assert_eq!(
        (last.id.as_str(), &last.data["state"]),
        ("1-4", &json!("succeeded"))
    );
    assert_eq!(view.next(), None);
    until("its slot is free", || {
        (reflex.metric("octollm_event_streams") == 0).then_some(())
    });
}

#[test]
fn a_reconnecting_client_gets_the_rest_and_nothing_after_the_end() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    for (seq, name) in [
        (1, "accepted"),
        (2, "planned"),
        (3, "step_sent"),
        (4, "step_succeeded"),
        (5, "finished"),
    ] {
        redis.publish(&event(&task, 1, seq, name));
    }
    ended(&redis, &task);
    assert_eq!(open(&reflex, &task, &after("1-3")).ids(), ["1-4", "1-5"]);
    let path = format!("/v1/tasks/{task}/events?after=1-2");
    assert_eq!(
        Events::open(&reflex, &path, "").ids(),
        ["1-3", "1-4", "1-5"]
    );
    // The header is newer than the query that the client started with.
    assert_eq!(Events::open(&reflex, &path, &after("1-4")).ids(), ["1-5"]);
    for done in ["1-5", "1-6", "2-1"] {
        assert_eq!(open(&reflex, &task, &after(done)).status, 204, "{done}");
    }
    for wrong in ["", "x", "1", "1-0", "0-1", "1-2-3", "1-99999999999"] {
        let answer = reflex.request(
            "GET",
            &format!("/v1/tasks/{task}/events"),
            &after(wrong),
            b"",
        );
        assert_eq!(answer.status, 400, "{wrong}");
        assert_eq!(
            answer.problem(),
            (
                "invalid_last_event_id".to_owned(),
                "Last-Event-ID".to_owned()
            )
        );
    }
    // A second run continues after the end of the first.
    redis.set_status(&task, "state|running|run|2");
    redis.publish(&event(&task, 2, 1, "accepted"));
    redis.publish(&event(&task, 2, 2, "finished"));
    assert_eq!(
        open(&reflex, &task, &after("1-4")).ids(),
        ["1-5", "2-1", "2-2"]
    );
}

#[test]
fn an_unknown_or_another_tenants_task_has_no_stream() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    redis.make_status(TASK, "other", "running");
    for task in [
        TASK,
        "l0-01h00000000000000000000001",
        "l7-01h00000000000000000000001",
        "odd",
    ] {
        let answer = reflex.get(&format!("/v1/tasks/{task}/events"));
        assert_eq!(
            (answer.status, answer.problem().0.as_str()),
            (404, "not_found")
        );
    }
}

#[test]
fn a_stream_ends_also_if_the_last_event_was_trimmed() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    redis.publish(&event(&task, 1, 1, "accepted"));
    let mut view = open(&reflex, &task, "");
    assert_eq!(view.next().unwrap().id, "1-1");
    ended(&redis, &task);
    assert_eq!(view.next(), None);
}

#[test]
fn with_an_api_the_history_comes_from_it_page_by_page() {
    let redis = Redis::start();
    let api = Api::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    redis.make_status(TASK, "default", "running");
    let events = format!("/v1/tasks/{TASK}/events");
    let page = |from: u32, to: u32, next: Option<&str>| {
        let items: Vec<_> = (from..=to)
            .map(|seq| event(TASK, 1, seq, "step_sent"))
            .collect();
        json!({"items": items, "next": next})
    };
    api.answer(
        &format!("{events}?limit=500"),
        200,
        &page(1, 3, Some("cursor")),
    );
    api.answer(
        &format!("{events}?limit=500&after=1-3"),
        200,
        &page(4, 5, None),
    );
    api.answer(
        &format!("{events}?limit=500&after=1-5"),
        200,
        &page(6, 6, None),
    );
    let mut view = open(&reflex, TASK, "");
    let mut next = || view.next_with_id().unwrap().id;
    assert_eq!(
        (1..=5).map(|_| next()).collect::<Vec<_>>(),
        ["1-1", "1-2", "1-3", "1-4", "1-5"]
    );
    // 1-6 was not published, so it is read from the API before 1-7 is sent.
    redis.publish(&event(TASK, 1, 7, "finished"));
    assert_eq!(view.ids(), ["1-6", "1-7"]);
    // Events that only the API has are sent, too, and the run can finish there.
    let _: i64 = redis.ask(&format!("DEL|{{l0}}:status:{TASK}"));
    api.answer(
        &format!("/v1/tasks/{TASK}"),
        200,
        &json!({"state": "succeeded", "run": 1}),
    );
    assert_eq!(open(&reflex, TASK, &after("1-5")).ids(), ["1-6"]);
    api.answer(
        &format!("{events}?limit=500&after=1-6"),
        200,
        &page(1, 0, None),
    );
    assert_eq!(open(&reflex, TASK, &after("1-6")).status, 204);
    assert!(api
        .requests()
        .iter()
        .all(|request| request.tenants == ["default"]));
    api.answer(&format!("{events}?limit=500&after=1-6"), 500, &json!({}));
    let answer = reflex.request("GET", &events, &after("1-6"), b"");
    assert_eq!(
        (answer.status, answer.problem().0.as_str()),
        (503, "api_unavailable")
    );
}

#[test]
fn a_task_that_waits_for_a_worker_reports_it_and_for_how_long() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    let moment = |ago_ms: u64| contracts::ids::timestamp(contracts::ids::now_ms() - ago_ms);
    let open_step =
        |ago_ms| json!([{"step": "check", "arm": "judge", "sent_at": moment(ago_ms)}]).to_string();
    let sent =
        |ago_ms| redis.set_status(&task, &format!("state|running|open|{}", open_step(ago_ms)));
    let url = format!("/v1/tasks/{task}");
    let waiting = || reflex.get(&url).json().get("waiting").cloned();
    sent(1000);
    assert_eq!(reflex.get(&url).json()["open"][0]["arm"], "judge");
    assert_eq!(waiting(), None, "it may just be on its way");
    // Half a second more than is expected: Redis' clock, as the reflex knows it, is late by as long as an answer takes.
    sent(60_500);
    assert_eq!(waiting(), None, "it is on the schedule");
    let _: String = redis.ask("XADD|{l0}:arm.judge:normal|*|type|step.requested.v1");
    let found = waiting().unwrap();
    assert_eq!(
        (&found[0]["step"], &found[0]["arm"]),
        (&json!("check"), &json!("judge"))
    );
    assert!(
        (60..90).contains(&found[0]["for_s"].as_u64().unwrap()),
        "{found}"
    );
    // The notice has no id, so a reconnect does not start from it.
    let notice = open(&reflex, &task, "").next().unwrap();
    assert_eq!((notice.id.as_str(), notice.name.as_str()), ("", "waiting"));
    assert_eq!(notice.data["arm"], "judge");
    // The consumer of released entries is not a worker; a worker on any of the arm's streams counts.
    let _: String = redis.ask("XGROUP|CREATE|{l0}:arm.judge:normal|judge|0");
    let _: i64 = redis.ask("XGROUP|CREATECONSUMER|{l0}:arm.judge:normal|judge|released");
    assert!(waiting().is_some());
    let _: String = redis.ask("XGROUP|CREATE|{l0}:arm.judge:low|judge|0|MKSTREAM");
    let _: i64 = redis.ask("XGROUP|CREATECONSUMER|{l0}:arm.judge:low|judge|worker-1");
    assert_eq!(waiting(), None);
    redis.set_status(&task, "state|succeeded");
    let _: i64 = redis.ask("XGROUP|DELCONSUMER|{l0}:arm.judge:low|judge|worker-1");
    assert_eq!(waiting(), None, "an ended task waits for nobody");
}

#[test]
fn a_stream_outlives_the_timeouts_and_ends_with_the_program() {
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_REFLEX_HEADER_TIMEOUT_S", "1"),
        ("OCTOLLM_REFLEX_BODY_TIMEOUT_S", "1"),
        ("OCTOLLM_REFLEX_MAX_EVENT_STREAMS", "1"),
    ];
    let mut reflex = Reflex::ready(&redis, &settings);
    let task = accepted(&reflex);
    redis.publish(&event(&task, 1, 1, "accepted"));
    let begun = Instant::now();
    let mut view = open(&reflex, &task, "");
    assert_eq!(view.next().unwrap().id, "1-1");
    let second = reflex.get(&format!("/v1/tasks/{task}/events"));
    assert_eq!(
        (second.status, second.problem().0.as_str()),
        (503, "overloaded")
    );
    until("both timeouts are over", || {
        (begun.elapsed() > Duration::from_secs(3)).then_some(())
    });
    redis.publish(&event(&task, 1, 2, "planned"));
    assert_eq!(view.next().unwrap().id, "1-2");
    reflex.request_stop();
    assert_eq!(
        view.next(),
        None,
        "an end in order, not a broken connection"
    );
    assert_eq!(reflex.exit_code(), Some(0));
}

#[test]
fn a_client_that_disconnects_frees_its_slot() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_REFLEX_MAX_EVENT_STREAMS", "1")]);
    let task = accepted(&reflex);
    redis.publish(&event(&task, 1, 1, "accepted"));
    drop(open(&reflex, &task, ""));
    let mut view = until("a slot is free", || {
        Some(open(&reflex, &task, "")).filter(|view| view.status == 200)
    });
    assert_eq!(view.next().unwrap().id, "1-1");
}

#[test]
fn events_during_an_outage_of_redis_are_sent_after_it() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    redis.publish(&event(&task, 1, 1, "accepted"));
    let mut view = open(&reflex, &task, "");
    assert_eq!(view.next().unwrap().id, "1-1");
    // Every connection of the reflex is killed, and an event is published before it reconnects.
    let _: i64 = redis.ask("CLIENT|KILL|TYPE|normal|SKIPME|yes");
    redis.publish(&event(&task, 1, 2, "planned"));
    redis.publish(&event(&task, 1, 3, "finished"));
    ended(&redis, &task);
    assert_eq!(view.ids(), ["1-2", "1-3"]);
}

#[test]
fn a_slow_client_loses_nothing() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let task = accepted(&reflex);
    redis.publish(&event(&task, 1, 1, "accepted"));
    let mut view = open(&reflex, &task, "");
    assert_eq!(view.next().unwrap().id, "1-1");
    // Far more than the buffers hold. The client reads nothing until everything is published.
    let mut client = redis::Client::open(redis.url())
        .unwrap()
        .get_connection()
        .unwrap();
    let mut pipe = redis::pipe();
    for seq in 2..=4000 {
        let mut filled = event(
            &task,
            1,
            seq,
            if seq == 4000 { "finished" } else { "step_sent" },
        );
        filled["detail"] = "y".repeat(3000).into();
        pipe.cmd("XADD")
            .arg("{l0}:events")
            .arg("*")
            .arg(&["type", "task.event.v1", "id", &task]);
        pipe.arg("body").arg(filled.to_string()).ignore();
    }
    pipe.query::<()>(&mut client).unwrap();
    let ids = view.ids();
    let wanted: Vec<_> = (2..=4000).map(|seq| format!("1-{seq}")).collect();
    assert_eq!(ids, wanted);
}
