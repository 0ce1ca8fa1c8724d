//! What Redis will never do ends the reflex with the cause; what passes is waited for.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use common::events::Events;
use common::{until, Redis, Reflex};

/// The URL of a user who may run every command but these.
fn url_without(redis: &Redis, commands: &str) -> String {
    let _: () = redis.ask(&format!(
        "ACL|SETUSER|limited|reset|on|>secret|~*|&*|+@all{commands}"
    ));
    format!("redis://limited:secret@127.0.0.1:{}/0", redis.port)
}

/// Waits for the end of a reflex that cannot work, which must have this cause.
fn ends_with(mut reflex: Reflex, cause: &str) {
    assert_eq!(reflex.exit_code(), Some(1), "{cause}");
    let last = until(cause, || {
        let log = reflex.log().join("\n");
        log.lines()
            .find(|line| line.contains("octollm-reflex stops: "))
            .map(str::to_owned)
    });
    assert!(last.contains(cause), "{cause}: {last}");
}

#[test]
fn a_missing_permission_ends_the_reflex_whichever_loop_meets_it() {
    let redis = Redis::start();
    for (commands, cause) in [
        ("|-time", "accept a connection to redis://***@127.0.0.1"),
        ("|-xgroup", "read ingest:default: NOPERM"),
        ("|-xreadgroup", "read ingest:default: NOPERM"),
        ("|-evalsha", "read ingest:default: NOPERM"),
    ] {
        let _: i64 = redis.ask("DEL|ingest:default");
        ends_with(
            Reflex::start_with(&url_without(&redis, commands), &[]),
            cause,
        );
    }
    // The events are read once there is a watcher.
    let reflex = Reflex::start_with(&url_without(&redis, "|-xread"), &[]);
    reflex.until_ready();
    let answer = reflex.post(br#"{"goal": "x"}"#, "");
    let task = answer.json()["task"].as_str().unwrap().to_owned();
    let _events = Events::open(&reflex, &format!("/v1/tasks/{task}/events"), "");
    ends_with(reflex, "read {l0}:events: NOPERM");
}

#[test]
fn a_login_that_redis_refuses_ends_the_reflex() {
    let redis = Redis::start();
    let url = url_without(&redis, "");
    for (url, cause) in [
        (url.replace("secret", "other"), "WRONGPASS"),
        (url.replace("/0", "/99"), "DB index is out of range"),
    ] {
        ends_with(Reflex::start_with(&url, &[]), cause);
    }
    let _: () = redis.ask("CONFIG|SET|requirepass|secret");
    ends_with(Reflex::start(&redis), "NOAUTH");
}

#[test]
fn a_server_without_a_free_connection_is_waited_for() {
    let redis = Redis::start();
    let url = url_without(&redis, "");
    let keep = redis::Client::open(redis.url()).unwrap().get_connection();
    let mut keep = keep.unwrap();
    let mut set = |count: &str| {
        let words = ["SET", "maxclients", count];
        redis::cmd("CONFIG").arg(&words).exec(&mut keep).unwrap();
    };
    for url in [url, redis.url()] {
        set("1");
        let reflex = Reflex::start_with(&url, &[]);
        until("it waits", || {
            reflex
                .get("/readyz")
                .body
                .contains("no connection to")
                .then_some(())
        });
        set("100");
        reflex.until_ready();
    }
}
