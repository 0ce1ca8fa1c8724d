//! Leases of ingest entries on a real Redis: they are renewed, lost, and reclaimed from a reflex that is gone.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use common::ingest::{wait_for, wait_until_done, INGEST};
use common::{until, Redis, Reflex};
use contracts::events::{read, DeadLetter};

const TASKS: &str = "{l0}:tasks:normal";
const DEAD: &str = "{l0}:dead";

/// Leases that are short enough for a test to wait for their end.
const SHORT: [(&str, &str); 3] = [
    ("lease_s: 30            #", "lease_s: 3             #"),
    ("heartbeat_s: 5         #", "heartbeat_s: 1         #"),
    ("max_deliveries: 5      #", "max_deliveries: 2      #"),
];

/// Delivers an entry `deliveries` times to another consumer.
fn abandon(redis: &Redis, id: &str, deliveries: u32) {
    let _: redis::Value = redis.ask(&format!(
        "XREADGROUP|GROUP|reflex|gone|COUNT|1|STREAMS|{INGEST}|>"
    ));
    let _: redis::Value = redis.ask(&format!(
        "XCLAIM|{INGEST}|reflex|gone|0|{id}|IDLE|60000|RETRYCOUNT|{deliveries}|JUSTID"
    ));
}

#[test]
fn an_abandoned_entry_is_reclaimed_and_becomes_a_dead_letter_at_the_limit() {
    let (_folder, file) = common::topology(&SHORT);
    let redis = Redis::start();
    let _: () = redis.ask(&format!("XGROUP|CREATE|{INGEST}|reflex|0|MKSTREAM"));
    let last = redis.submit(&[("body", r#"{"goal": "ada@example.org"}"#)]);
    abandon(&redis, &last, 2);
    let other = redis.submit(&[("body", r#"{"goal": "x"}"#)]);
    abandon(&redis, &other, 1);
    let _reflex = Reflex::start_with(&redis.url(), &[("OCTOLLM_TOPOLOGY_FILE", &file)]);
    wait_for(&redis, DEAD, 1);
    wait_for(&redis, TASKS, 1);
    wait_until_done(&redis);
    let entry = &redis.entries(DEAD)[0];
    let dead_letter: DeadLetter = read(entry.field("body").as_bytes()).unwrap();
    assert_eq!(dead_letter.reason.as_str(), "deliveries_exhausted");
    assert_eq!(
        (dead_letter.entry.as_str(), dead_letter.delivery.get()),
        (last.as_str(), 2)
    );
    assert_eq!(entry.field("original"), r#"{"goal": "[email]"}"#);
}

/// The consumer and the delivery count of the one pending entry. `None` also before the program has created its group.
fn pending(redis: &Redis) -> Option<(String, u64)> {
    if redis.ask::<i64>(&format!("EXISTS|{INGEST}")) == 0 {
        return None;
    }
    let groups: Vec<redis::Value> = redis.ask(&format!("XINFO|GROUPS|{INGEST}"));
    if groups.is_empty() {
        return None;
    }
    let list: Vec<(String, String, u64, u64)> =
        redis.ask(&format!("XPENDING|{INGEST}|reflex|-|+|10"));
    list.into_iter()
        .next()
        .map(|(_, holder, _, count)| (holder, count))
}

#[test]
fn an_entry_keeps_its_lease_while_too_many_tasks_are_queued_and_is_released_at_the_end() {
    let busy = ("high_water: 100000", "high_water: 1");
    let (_folder, file) = common::topology(&[&SHORT[..], &[busy]].concat());
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_TOPOLOGY_FILE", file.as_str()),
        ("OCTOLLM_REFLEX_DRAIN_S", "1"),
        ("OCTOLLM_REFLEX_CONSUMER", "one"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    assert_eq!(reflex.post(br#"{"goal": "x"}"#, "").status, 202);
    let id = redis.submit(&[("body", r#"{"goal": "y"}"#)]);
    until("it is delivered", || pending(&redis));
    // It was delivered longer ago than a lease lasts; only renewals keep it at its first delivery.
    let born: u64 = id.split('-').next().unwrap().parse().unwrap();
    until("the lease's time is over", || {
        let now: (u64, u64) = redis.ask("TIME");
        (now.0 * 1000 > born + 5000).then_some(())
    });
    assert_eq!(pending(&redis), Some(("one".into(), 1)));
    assert!(reflex
        .get("/metrics")
        .body
        .contains("octollm_ingest_waits_total{cause=\"overloaded\"}"));

    assert_eq!(reflex.terminate(), Some(0));
    assert_eq!(pending(&redis), Some(("released".into(), 0)));
    let _: i64 = redis.ask(&format!("DEL|{TASKS}"));
    let next = Reflex::start_with(&redis.url(), &[("OCTOLLM_REFLEX_CONSUMER", "two")]);
    wait_for(&redis, TASKS, 1);
    wait_until_done(&redis);
    assert_eq!(next.terminate(), Some(0));
    let consumers: Vec<Vec<redis::Value>> = redis.ask(&format!("XINFO|CONSUMERS|{INGEST}|reflex"));
    let shown = format!("{consumers:?}");
    assert!(!shown.contains("one") && !shown.contains("two"), "{shown}");
}

#[test]
fn an_entry_with_a_lost_lease_is_dropped_and_its_slot_is_free() {
    let busy = ("high_water: 100000", "high_water: 1");
    let one_slot = ("concurrency: 64        #", "concurrency: 1         #");
    let (_folder, file) = common::topology(&[&SHORT[..], &[busy, one_slot]].concat());
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_TOPOLOGY_FILE", file.as_str()),
        ("OCTOLLM_REFLEX_CONSUMER", "one"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    assert_eq!(reflex.post(br#"{"goal": "x"}"#, "").status, 202);
    let lost = redis.submit(&[("body", r#"{"goal": "y"}"#)]);
    until("it is delivered", || pending(&redis));
    redis.submit(&[("body", r#"{"goal": "z"}"#)]);
    let _: redis::Value = redis.ask(&format!("XCLAIM|{INGEST}|reflex|other|0|{lost}"));
    // As the other consumer does when it has finished.
    let _: i64 = redis.ask(&format!("XACK|{INGEST}|reflex|{lost}"));
    let _: i64 = redis.ask(&format!("XDEL|{INGEST}|{lost}"));
    // There is only one slot, so the next entry is read once the lost one is dropped.
    until("the next one is delivered", || pending(&redis));
    let _: i64 = redis.ask(&format!("DEL|{TASKS}"));
    wait_until_done(&redis);
    let entry = &redis.entries(TASKS)[0];
    assert_eq!(entry.body()["submission"]["goal"], "z");
    assert_eq!(redis.length(TASKS), 1);
}
