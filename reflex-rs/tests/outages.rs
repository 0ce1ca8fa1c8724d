//! A Redis that is missing, full, broken or overloaded: the reflex keeps serving and reports it.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use common::{free_port, until, Answer, Redis, Reflex};

const GOOD: &[u8] = br#"{"goal": "x"}"#;

fn refused(answer: &Answer) -> (u16, String, bool) {
    let retry = answer.head.contains("retry-after: 1");
    (answer.status, answer.problem().0, retry)
}

#[test]
fn it_starts_without_redis_and_works_once_redis_is_up() {
    let port = free_port();
    let mut reflex = Reflex::start_with(&format!("redis://:s3cret@127.0.0.1:{port}/0"), &[]);
    assert_eq!(reflex.get("/healthz").status, 200);
    let ready = reflex.get("/readyz");
    assert_eq!((ready.status, &ready.json()["ready"]), (503, &false.into()));
    let reasons = ready.json()["reasons"].clone();
    assert!(reasons[0].as_str().unwrap().contains("Redis"), "{reasons}");
    assert_eq!(
        refused(&reflex.post(GOOD, "")),
        (503, "store_unavailable".into(), true)
    );
    let shown = reflex.get("/v1/tasks/l0-01h00000000000000000000000");
    assert_eq!(refused(&shown), (503, "store_unavailable".into(), true));
    let log = until("it says where it looked", || {
        let log = reflex.log().join("\n");
        log.contains(&format!("***@127.0.0.1:{port}"))
            .then_some(log)
    });
    assert!(
        log.contains("OCTOLLM_REDIS_URL") && !log.contains("s3cret"),
        "{log}"
    );

    let redis = Redis::start_on(port, &["--requirepass", "s3cret"]);
    reflex.until_ready();
    assert_eq!(reflex.post(GOOD, "").status, 202);
    drop(redis);
    until("it notices", || {
        (reflex.get("/readyz").status == 503).then_some(())
    });
    // One that was sent over the connection just when it broke is "unconfirmed".
    until("submissions are refused", || {
        (refused(&reflex.post(GOOD, "")) == (503, "store_unavailable".into(), true)).then_some(())
    });
    let _redis = Redis::start_on(port, &["--requirepass", "s3cret"]);
    reflex.until_ready();
    // The new server does not have the script.
    assert_eq!(reflex.post(GOOD, "").status, 202);
    assert_eq!(reflex.terminate(), Some(0));
}

#[test]
fn it_stops_gracefully_without_redis() {
    let reflex = Reflex::start_with(&common::url(free_port()), &[]);
    assert_eq!(reflex.terminate(), Some(0));
}

#[test]
fn a_full_a_broken_and_an_overloaded_store_have_different_codes() {
    let (_folder, file) = common::topology(&[("high_water: 100000", "high_water: 1")]);
    let redis = Redis::start();
    let mut reflex = Reflex::ready(&redis, &[("OCTOLLM_TOPOLOGY_FILE", &file)]);
    let _: () = redis.ask("CONFIG|SET|maxmemory|1");
    assert_eq!(
        refused(&reflex.post(GOOD, "")),
        (503, "store_full".into(), true)
    );
    let _: () = redis.ask("CONFIG|SET|maxmemory|0");
    let _: () = redis.ask("SET|{l0}:tasks:normal|odd");
    assert_eq!(
        refused(&reflex.post(GOOD, "")),
        (500, "internal".into(), false)
    );
    let _: i64 = redis.ask("DEL|{l0}:tasks:normal");
    assert_eq!(reflex.post(GOOD, "").status, 202);
    assert_eq!(
        refused(&reflex.post(GOOD, "")),
        (503, "overloaded".into(), true)
    );
    let log = until("the cause is logged", || {
        let log = reflex.log().join("\n");
        log.contains("WRONGTYPE").then_some(log)
    });
    assert_eq!(log.matches("WRONGTYPE").count(), 1, "{log}");
}

#[test]
fn the_answer_names_the_durability_that_redis_is_configured_for() {
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    let redis = Redis::start_on(free_port(), &always);
    let reflex = Reflex::ready(&redis, &[]);
    assert_eq!(reflex.post(GOOD, "").json()["durability"], "fsync");
    let everysec = ["--appendonly", "yes", "--appendfsync", "everysec"];
    let redis = Redis::start_on(free_port(), &everysec);
    let reflex = Reflex::ready(&redis, &[]);
    assert_eq!(reflex.post(GOOD, "").json()["durability"], "redis");
    // Hosted servers refuse CONFIG.
    let hosted = [&always[..], &["--rename-command", "CONFIG", ""]].concat();
    let redis = Redis::start_on(free_port(), &hosted);
    let reflex = Reflex::ready(&redis, &[]);
    assert_eq!(reflex.post(GOOD, "").json()["durability"], "redis");
}
