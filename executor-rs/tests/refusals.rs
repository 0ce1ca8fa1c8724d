//! What Redis will never do ends the worker with the cause; what passes is waited for.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::sync::Arc;
use std::time::Duration;

use bus::{Entry, Lease, Leases, RedisClient};
use contracts::settings;
use serde_json::json;
use stage::{until, Message, Stage, STREAM};

fn echo() -> Message {
    Stage::message(&json!({"language": "shell", "code": "echo done"}), 0)
}

/// Run a worker with this URL to its end, which must have this cause.
fn ends_with(stage: &Stage, url: &str, cause: &str) {
    let log = stage.refused(&[("OCTOLLM_REDIS_URL", url)]);
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"ERROR\""))
        .collect();
    // One from the supervisor, and the last one of the process.
    assert!(matches!(lines.len(), 1 | 2), "{cause}: {log}");
    assert!(
        lines.last().unwrap().contains("octollm-executor stops: "),
        "{log}"
    );
    for line in lines {
        assert!(line.contains(cause), "{cause}: {log}");
    }
}

#[test]
fn a_missing_permission_ends_the_worker_whichever_loop_meets_it() {
    let stage = Stage::new();
    for (command, cause) in [
        ("-time", "accept a connection to redis://***@127.0.0.1"),
        (
            "-xgroup",
            "create the consumer groups of arm.executor: NOPERM",
        ),
        ("-xreadgroup", "read arm.executor: NOPERM"),
        ("-evalsha", "reclaim entries of arm.executor: NOPERM"),
        ("-subscribe", "subscribe to the control channels: NOPERM"),
    ] {
        // The groups are there already, except where none may be created.
        if command == "-xgroup" {
            let _: usize = stage.ask(&["DEL", STREAM]);
        }
        ends_with(&stage, &stage.url_without(&[command]), cause);
    }
    stage.add(&echo());
    ends_with(
        &stage,
        &stage.url_without(&["-zscore"]),
        "say whether a run has ended: NOPERM",
    );
    // Nothing was charged to the step beyond its delivery, and it ends elsewhere.
    let worker = stage.worker(&[]);
    assert_eq!(stage.done(0).1["outcome"], "succeeded");
    worker.kill();
}

#[test]
fn a_login_that_redis_refuses_ends_the_worker() {
    let stage = Stage::new();
    let url = stage.url_without(&[]);
    for (url, cause) in [
        (url.replace("secret", "other"), "WRONGPASS"),
        (url.replace("/0", "/99"), "DB index is out of range"),
    ] {
        ends_with(&stage, &url, cause);
    }
    let () = stage.ask(&["CONFIG", "SET", "requirepass", "secret"]);
    ends_with(&stage, &stage.url(), "NOAUTH");
}

#[test]
fn a_key_of_the_wrong_type_ends_the_worker_at_its_start_and_later() {
    let stage = Stage::new();
    let () = stage.ask(&["SET", STREAM, "x"]);
    ends_with(
        &stage,
        &stage.url(),
        "create the consumer groups of arm.executor: WRONGTYPE",
    );
    let _: usize = stage.ask(&["DEL", STREAM]);
    let mut worker = stage.worker(&[]);
    worker.until_ready();
    let replace = [
        "EVAL",
        "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'x')",
        "1",
        STREAM,
    ];
    let _: Option<()> = stage.ask(&replace);
    assert_eq!(worker.wait(), Some(1));
}

#[test]
fn a_server_without_a_free_connection_is_waited_for() {
    let stage = Stage::new();
    let url = stage.url_without(&[]);
    let () = stage.ask(&["CONFIG", "SET", "maxclients", "1"]);
    for url in [url, stage.url()] {
        let worker = stage.worker(&[("OCTOLLM_REDIS_URL", &url)]);
        worker.until_http("/readyz", |_, text| text.contains("no connection to"));
        let () = stage.ask(&["CONFIG", "SET", "maxclients", "100"]);
        worker.until_ready();
        worker.kill();
        let () = stage.ask(&["CONFIG", "SET", "maxclients", "1"]);
    }
}

#[test]
fn a_renewal_that_is_refused_ends_one_lease_only() {
    const GOOD: usize = 20;
    let stage = Stage::new();
    for _ in 0..GOOD {
        stage.add(&echo());
    }
    stage.join_group_from_start("me");
    stage.read_as("me");
    let env = [("OCTOLLM_REDIS_URL".to_owned(), stage.url())].into();
    let settings = settings::load_from(&env).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, keep_connected) = RedisClient::open(&settings.redis).unwrap();
        let supervisor = service::Supervisor::default();
        supervisor.spawn_loop("redis connection", keep_connected);
        let leases = Leases::new(client, "executor", "me");
        let entry = |id: &str, delivery| Entry {
            stream: STREAM.to_owned(),
            id: id.to_owned(),
            delivery,
            fields: Vec::new(),
        };
        let good: Vec<Lease> = (0..GOOD)
            .map(|number| leases.hold(&entry(&stage.numbered(STREAM, number).0, 1), None, None))
            .collect();
        // More than a script takes for a number.
        let _bad = leases.hold(&entry("1-1", u64::MAX), None, None);
        let idle_ms = || {
            let words = ["XPENDING", STREAM, "executor", "-", "+", "100"];
            let pending: Vec<(String, String, u64, u64)> = stage.ask(&words);
            pending.into_iter().map(|one| one.2).collect::<Vec<_>>()
        };
        until("all are old", || idle_ms().iter().all(|idle| *idle > 500));
        let renewal = Arc::clone(&leases).run(Duration::from_millis(100));
        supervisor.spawn_loop("lease renewal", renewal);
        until("all are renewed", || {
            idle_ms().iter().all(|idle| *idle < 500)
        });
        assert!(good.iter().all(|lease| lease.lost().is_none()));
    });
}
