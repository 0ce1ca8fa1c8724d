//! A Redis that hangs: every request is answered within about a second, and no answer says less than what happened.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::time::{Duration, Instant};

use common::{until, Answer, Redis, Reflex};

const GOOD: &[u8] = br#"{"goal": "x"}"#;
const UNKNOWN: &str = "/v1/tasks/l0-01h00000000000000000000000";
/// A second for Redis, and what a busy machine needs.
const MAX_ANSWER: Duration = Duration::from_millis(1200);

/// Runs a request that must be answered in time.
fn timed(request: impl FnOnce() -> Answer) -> Answer {
    let begun = Instant::now();
    let answer = request();
    let took = begun.elapsed();
    assert!(took < MAX_ANSWER, "{took:?}: {answer:?}");
    assert_eq!(answer.status, 503, "{answer:?}");
    answer
}

fn code(answer: &Answer) -> String {
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
    answer.problem().0
}

#[test]
fn a_task_that_is_stored_late_is_named_in_the_answer() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    for key in ["", "idempotency-key: k\r\n"] {
        assert!(redis.length("{l0}:tasks:normal") < 2);
        redis.signal("STOP");
        let answer = timed(|| reflex.post(GOOD, key));
        assert_eq!(code(&answer), "unconfirmed");
        let task = answer.json()["task"].as_str().unwrap().to_owned();
        redis.signal("CONT");
        reflex.until_ready();
        let status = until("it is stored", || {
            Some(reflex.get(&format!("/v1/tasks/{task}"))).filter(|answer| answer.status == 200)
        });
        assert_eq!(status.json()["state"], "accepted");
        if !key.is_empty() {
            let repeat = reflex.post(GOOD, key).json();
            assert_eq!(repeat["task"], task.as_str());
            assert_eq!(
                (&repeat["duplicate"], &repeat["state"]),
                (&true.into(), &"accepted".into())
            );
        }
    }
    assert_eq!(redis.length("{l0}:tasks:normal"), 2);
}

#[test]
fn readiness_is_red_within_two_seconds_and_later_requests_do_not_wait() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    redis.signal("STOP");
    let begun = Instant::now();
    timed(|| reflex.get(UNKNOWN));
    assert_eq!(timed(|| reflex.get("/readyz")).status, 503);
    until("it is known to be unavailable", || {
        (code(&timed(|| reflex.post(GOOD, ""))) == "store_unavailable").then_some(())
    });
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    // Nothing is sent any more, so nothing is stored and nothing waits.
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(code(&reflex.post(GOOD, "")), "store_unavailable");
        assert_eq!(
            code(&reflex.request("DELETE", UNKNOWN, "", b"")),
            "store_unavailable"
        );
    }
    assert!(begun.elapsed() < MAX_ANSWER * 2, "{:?}", begun.elapsed());
    redis.signal("CONT");
    reflex.until_ready();
    assert_eq!(reflex.post(GOOD, "").status, 202);
}

#[test]
fn an_answer_that_waits_for_more_durability_does_not_wait_for_a_server_that_hangs() {
    let redis = Redis::start();
    let _replica = redis.start_replica();
    let settings = [("OCTOLLM_REFLEX_DURABILITY_WAIT_S", "60")];
    let reflex = Reflex::ready(&redis, &settings);
    until("the replica is noticed", || {
        let answer = reflex.post(GOOD, "octollm-durability: replicated(1)\r\n");
        (answer.status == 202).then_some(())
    });
    for mode in ["replicated(1)", "stored"] {
        redis.signal("STOP");
        let answer = timed(|| reflex.post(GOOD, &format!("octollm-durability: {mode}\r\n")));
        redis.signal("CONT");
        reflex.until_ready();
        match code(&answer).as_str() {
            "unconfirmed" => assert!(answer.json()["task"].is_string()),
            // The event stream could not be followed any more, so nothing was stored.
            code => assert_eq!((mode, code), ("stored", "store_unavailable")),
        }
    }
}

#[test]
fn ingest_entries_wait_out_a_server_that_hangs() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    redis.submit(&[("body", r#"{"goal": "x"}"#)]);
    redis.signal("STOP");
    timed(|| reflex.get("/readyz"));
    redis.signal("CONT");
    redis.submit(&[("body", r#"{"goal": "y"}"#)]);
    until("both are stored once", || {
        (redis.length("{l0}:tasks:normal") == 2 && redis.length("ingest:default") == 0)
            .then_some(())
    });
}
