//! Keys, lanes, ids and times by `schemas/vectors/keys.json`; `tests/contract/test_keys.py` reads the same file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use contracts::events::{Name, TaskId};
use contracts::keys::{
    ingest, LaneKeys, API_KEYS, API_KEYS_USED, API_KEYS_VERSION, KINDS, KINDS_VERSION,
};
use contracts::topology::{self, Topology};
use contracts::{ids, strict_json};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cases of one part of the file; never none.
fn cases(part: &str) -> Vec<Value> {
    let data = std::fs::read(root().join("schemas/vectors/keys.json")).unwrap();
    strict_json::check(&data).unwrap();
    let found: Value = serde_json::from_slice(&data).unwrap();
    let cases = found[part].as_array().unwrap().clone();
    assert!(!cases.is_empty(), "{part}");
    cases
}

fn shipped() -> Topology {
    topology::load(&root().join("streams.yaml"), &root().join("schemas/events")).unwrap()
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap()
}

fn number(case: &Value, field: &str) -> i64 {
    case[field].as_i64().unwrap()
}

fn size(case: &Value, field: &str) -> usize {
    usize::try_from(number(case, field)).unwrap()
}

#[test]
fn a_stream_is_named_by_lane_topic_and_priority() {
    let topology = shipped();
    for case in cases("streams") {
        let topic = &topology.topics[text(&case, "topic")];
        let key = LaneKeys::new(text(&case, "lane")).stream(topic, case["priority"].as_str());
        assert_eq!(key, text(&case, "key"));
    }
    for case in cases("reading_order") {
        let topic = &topology.topics[text(&case, "topic")];
        let keys = LaneKeys::new(text(&case, "lane")).streams(topic, &topology.priorities);
        assert_eq!(Value::from(keys), case["keys"]);
    }
}

#[test]
fn the_lane_has_its_fixed_keys() {
    let data = std::fs::read(root().join("schemas/vectors/keys.json")).unwrap();
    let found: Value = serde_json::from_slice(&data).unwrap();
    let keys = LaneKeys::new("l0");
    let ours = serde_json::json!({
        "in_flight": keys.in_flight(), "schedule": keys.schedule(), "messages": keys.messages(),
        "dead": keys.dead(), "done": keys.done(), "events": keys.events(),
        "barrier": keys.barrier(), "control": keys.control(),
        "ended_runs": keys.ended_runs(),
    });
    assert_eq!(ours, found["fixed"]);
    let api_keys = serde_json::json!({
        "keys": API_KEYS, "version": API_KEYS_VERSION, "used": API_KEYS_USED,
    });
    assert_eq!(api_keys, found["api_keys"]);
    let kinds = serde_json::json!({"hash": KINDS, "version": KINDS_VERSION});
    assert_eq!(kinds, found["kinds"]);
    for case in cases("fairness") {
        let stream = text(&case, "stream");
        assert_eq!(
            keys.running(&shipped().topics[text(&case, "topic")]),
            text(&case, "running")
        );
        assert_eq!(LaneKeys::waiting(stream), text(&case, "waiting"));
        assert_eq!(LaneKeys::ring(stream), text(&case, "ring"));
    }
    for case in cases("status") {
        assert_eq!(keys.status(text(&case, "task")), text(&case, "key"));
    }
    for case in cases("ingest") {
        assert_eq!(ingest(text(&case, "tenant")), text(&case, "key"));
    }
    for case in cases("idempotency") {
        let name = keys.idempotency(text(&case, "tenant"), text(&case, "key"));
        assert_eq!(name, text(&case, "name"));
    }
}

#[test]
fn the_key_decides_the_lane() {
    for case in cases("lanes") {
        let index = ids::lane_index(
            text(&case, "tenant"),
            text(&case, "key"),
            size(&case, "lanes"),
        );
        assert_eq!(index, size(&case, "index"), "{case}");
    }
}

#[test]
fn a_ulid_is_time_and_chance_and_a_time_has_milliseconds() {
    for case in cases("ulids") {
        let hexadecimal = text(&case, "random");
        let random = std::array::from_fn(|place| {
            u8::from_str_radix(&hexadecimal[2 * place..2 * place + 2], 16).unwrap()
        });
        let ulid = ids::ulid(case["ms"].as_u64().unwrap(), random);
        assert_eq!(ulid, text(&case, "ulid"));
        let task = ids::task_id("l3", &ulid).unwrap();
        assert_eq!(task.as_str(), format!("l3-{ulid}"));
        assert_eq!(ids::lane_of(&task), "l3");
    }
    for case in cases("times") {
        assert_eq!(
            ids::timestamp(case["ms"].as_u64().unwrap()),
            text(&case, "text")
        );
    }
}

#[test]
fn a_message_id_is_built_and_read_back() {
    for case in cases("message_ids") {
        let task: TaskId = text(&case, "task").parse().unwrap();
        let step: Name = text(&case, "step").parse().unwrap();
        let [run, round, attempt] = ["run", "round", "attempt"].map(|field| number(&case, field));
        let id = ids::message_id(&task, run, &step, round, attempt);
        assert_eq!(id, text(&case, "id"));
        let ident = ids::parse_message_id(&id).unwrap();
        assert_eq!(ident.message_id(), id);
        assert_eq!(ident.in_flight_field(), text(&case, "live"));
        assert_eq!(
            (ident.run, ident.round, ident.attempt),
            (run, round, attempt)
        );
    }
    for case in cases("not_message_ids") {
        let text = case.as_str().unwrap();
        assert!(ids::parse_message_id(text).is_err(), "{text:?} was read");
    }
}
