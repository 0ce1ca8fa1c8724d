//! A reflex on a Redis with TLS.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

#[path = "../../tests/certificates.rs"]
mod certificates;
mod common;

use common::events::Events;
use common::{free_port, Redis, Reflex};

#[test]
fn a_reflex_takes_tasks_over_tls_on_every_connection() {
    let redis = Redis::start();
    let _replica = redis.start_replica();
    let folder = tempfile::tempdir().unwrap();
    let ca = certificates::authority(folder.path(), "ca");
    let port = free_port();
    let words = certificates::serve_tls(&ca, port);
    let _: () = redis.ask(&format!("CONFIG|SET|{}", words.join("|")));
    let url = format!("rediss://127.0.0.1:{port}/0");
    let reflex = Reflex::start_with(&url, &[("OCTOLLM_REDIS_CA_FILE", ca.to_str().unwrap())]);
    reflex.until_ready();
    let answer = reflex.post(br#"{"goal": "x"}"#, "octollm-durability: replicated(1)\r\n");
    assert_eq!(answer.status, 202, "{answer:?}");
    let task = answer.json()["task"].as_str().unwrap().to_owned();
    let events = Events::open(&reflex, &format!("/v1/tasks/{task}/events"), "");
    assert_eq!(events.status, 200);
    redis.submit(&[("body", r#"{"goal": "y"}"#)]);
    common::until("it is taken from the ingest stream", || {
        (redis.length("{l0}:tasks:normal") == 2).then_some(())
    });
    drop(events);
    assert_eq!(reflex.terminate(), Some(0));
}

#[test]
fn a_certificate_of_an_unknown_authority_is_not_accepted() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let (ca, port) = (certificates::authority(folder.path(), "ca"), free_port());
    let words = certificates::serve_tls(&ca, port);
    let _: () = redis.ask(&format!("CONFIG|SET|{}", words.join("|")));
    let reflex = Reflex::start_with(&format!("rediss://127.0.0.1:{port}/0"), &[]);
    let reason = common::until("it says why", || {
        let answer = reflex.get("/readyz").body;
        answer
            .contains("invalid peer certificate")
            .then_some(answer)
    });
    assert!(reason.contains("rediss://127.0.0.1"), "{reason}");
}
