//! The names of dead processes in a consumer group, on a real Redis.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bus::dead_consumers::remove_idle;
use bus::{ConsumerGroup, RedisClient};
use contracts::keys::LaneKeys;
use contracts::{settings, topology};
use serde_json::json;
use service::Supervisor;
use stage::{until, Stage};

async fn group(stage: &Stage) -> ConsumerGroup {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("streams.yaml")).unwrap();
    let topology = topology::parse(&text, &root.join("schemas/events")).unwrap();
    let url = BTreeMap::from([("OCTOLLM_REDIS_URL".to_owned(), stage.url())]);
    let settings = settings::load_from(&url).unwrap();
    let (client, keep_connected) = RedisClient::open(&settings.redis).unwrap();
    Supervisor::default().spawn_loop("redis connection", keep_connected);
    while client.connection().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let topic = &topology.topics["arm.executor"];
    ConsumerGroup::of_topic(client, &LaneKeys::new("l0"), topic, &topology, "me")
}

#[tokio::test]
async fn names_that_own_nothing_go_after_a_while_and_nobody_loses_an_entry() {
    let stage = Stage::new();
    let group = group(&stage).await;
    assert!(
        remove_idle(&group, Duration::ZERO).await.is_err(),
        "no group yet"
    );
    for name in ["me", "idle", "owner"] {
        group.create().await.unwrap();
        stage.join_group(name);
    }
    stage.add(&Stage::message(&json!({}), 0));
    stage.read_as("owner");
    remove_idle(&group, Duration::from_secs(60)).await.unwrap();
    assert_eq!(stage.consumer_names(), ["idle", "me", "owner"]);
    remove_idle(&group, Duration::ZERO).await.unwrap();
    assert_eq!(stage.consumer_names(), ["me", "owner"]);
    assert_eq!(stage.deliveries(), [("owner".to_owned(), 1)]);
}

#[test]
fn a_worker_looks_for_them_when_it_starts() {
    let stage = Stage::new();
    let mut worker = stage.worker(&[]);
    worker.until_ready();
    until("it has asked for the consumers", || {
        stage.was_called("xinfo|consumers")
    });
    worker.terminate();
    assert_eq!(worker.wait(), Some(0));
}
