//! The durability that a 202 promises: refused if it is impossible, else waited for, and reported if it is not confirmed.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::api::Api;
use common::history::event;
use common::{free_port, until, Answer, Redis, Reflex};

const GOOD: &[u8] = br#"{"goal": "x"}"#;
const TASKS: &str = "{l0}:tasks:normal";
const KEY: &str = "idempotency-key: k1\r\n";

fn mode(answer: &Answer) -> (u16, String) {
    let said = answer.json()["durability"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    (answer.status, said)
}

/// The code of a refusal that may be retried.
fn later(answer: &Answer) -> String {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
    answer.problem().0
}

fn task(answer: &Answer) -> String {
    answer.json()["task"].as_str().unwrap().to_owned()
}

#[test]
fn fsync_is_refused_until_redis_syncs_before_it_answers() {
    let redis = Redis::start_on(free_port(), &["--appendonly", "yes"]);
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_REFLEX_DURABILITY", "fsync")]);
    assert_eq!(later(&reflex.post(GOOD, "")), "not_durable");
    assert_eq!(redis.length(TASKS), 0, "nothing was taken");
    let _: () = redis.ask("CONFIG|SET|appendfsync|always");
    let taken = until("it is taken", || {
        Some(reflex.post(GOOD, "")).filter(|answer| answer.status == 202)
    });
    assert_eq!(mode(&taken), (202, "fsync".into()));
    let _: () = redis.ask("CONFIG|SET|appendfsync|everysec");
    until("it notices", || {
        (reflex.post(GOOD, "").status == 503).then_some(())
    });
}

#[test]
fn a_server_that_does_not_say_whether_it_syncs_counts_as_not_syncing() {
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    let hosted = [&always[..], &["--rename-command", "CONFIG", ""]].concat();
    let redis = Redis::start_on(free_port(), &hosted);
    let reflex = Reflex::ready(&redis, &[]);
    assert_eq!(mode(&reflex.post(GOOD, "")), (202, "redis".into()));
    let refused = reflex.post(GOOD, "octollm-durability: fsync\r\n");
    assert_eq!(later(&refused), "not_durable");
}

#[test]
fn replicated_means_that_the_replica_has_it() {
    let redis = Redis::start();
    let settings = [("OCTOLLM_REFLEX_DURABILITY", "replicated")];
    let reflex = Reflex::ready(&redis, &settings);
    assert_eq!(later(&reflex.post(GOOD, "")), "not_durable");
    assert_eq!(redis.length(TASKS), 0, "nothing was taken");
    let replica = redis.start_replica();
    let taken = until("the replica is noticed", || {
        Some(reflex.post(GOOD, KEY)).filter(|answer| answer.status == 202)
    });
    assert_eq!(mode(&taken), (202, "replicated(1)".into()));
    let there = replica.entries(TASKS);
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].field("id"), task(&taken));
    // The server has lost the script, on connections that are in use.
    let _: () = redis.ask("SCRIPT|FLUSH");
    let repeat = until("the script is back", || {
        Some(reflex.post(GOOD, KEY)).filter(|answer| answer.status == 202)
    });
    assert_eq!(
        (task(&repeat), mode(&repeat).1),
        (task(&taken), "replicated(1)".into())
    );
    let more = reflex.post(GOOD, "octollm-durability: replicated(2)\r\n");
    assert_eq!(later(&more), "not_durable");
    assert_eq!(redis.length(TASKS), 1);
}

#[test]
fn a_replica_that_hangs_delays_only_submissions_that_need_it() {
    let redis = Redis::start();
    let replica = redis.start_replica();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_REFLEX_DURABILITY_WAIT_S", "2")]);
    let need = format!("{KEY}octollm-durability: replicated\r\n");
    assert_eq!(
        reflex
            .post(GOOD, "octollm-durability: replicated\r\n")
            .status,
        202
    );
    replica.signal("STOP");
    let over = AtomicBool::new(false);
    let waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let answer = reflex.post(GOOD, &need);
            over.store(true, Ordering::SeqCst);
            answer
        });
        until("it is written", || (redis.length(TASKS) == 2).then_some(()));
        let meanwhile = reflex.post(GOOD, "");
        assert_eq!(mode(&meanwhile), (202, "redis".into()));
        assert_eq!(
            reflex
                .get(meanwhile.json()["status_url"].as_str().unwrap())
                .status,
            200
        );
        assert!(!over.load(Ordering::SeqCst), "the others were held up");
        waiting.join().unwrap()
    });
    assert_eq!(later(&waited), "unconfirmed");
    let detail = waited.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("Idempotency-Key") && detail.contains("replicated(1)"),
        "{detail}"
    );
    assert_eq!(redis.entries(TASKS)[1].field("id"), task(&waited));
    // From now on nothing is written for submissions that the replica could not confirm.
    let next = reflex.post(GOOD, "octollm-durability: replicated\r\n");
    assert_eq!(later(&next), "not_durable");
    assert_eq!(redis.length(TASKS), 3);
    replica.signal("CONT");
    let repeat = until("the replica is back", || {
        Some(reflex.post(GOOD, &need)).filter(|answer| answer.status == 202)
    });
    assert_eq!(
        (task(&repeat), mode(&repeat).1),
        (task(&waited), "replicated(1)".into())
    );
    assert_eq!(replica.entries(TASKS)[1].field("id"), task(&waited));
}

#[test]
fn one_wait_serves_many_submissions() {
    const MANY: usize = 60;
    let redis = Redis::start();
    let replica = redis.start_replica();
    let settings = [
        ("OCTOLLM_REFLEX_DURABILITY", "replicated"),
        ("OCTOLLM_REFLEX_DURABILITY_WAIT_S", "20"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    replica.signal("STOP");
    std::thread::scope(|scope| {
        let posts: Vec<_> = (0..MANY)
            .map(|_| scope.spawn(|| reflex.post(GOOD, "")))
            .collect();
        // The query of the counter is a command, too.
        until("all are there", || {
            (reflex.metric("octollm_http_in_flight") == MANY as u64 + 1).then_some(())
        });
        replica.signal("CONT");
        for post in posts {
            assert_eq!(mode(&post.join().unwrap()), (202, "replicated(1)".into()));
        }
    });
    assert_eq!(replica.length(TASKS), MANY);
    let said: String = redis.ask("INFO|commandstats");
    let calls = said
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_wait:calls="));
    let calls: usize = calls.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(calls < MANY / 3, "{calls} WAITs");
}

#[test]
fn fsync_is_not_claimed_while_a_rewrite_of_the_file_suspends_it() {
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    let redis = Redis::start_on(free_port(), &always);
    let reflex = Reflex::ready(&redis, &[]);
    let need = "octollm-durability: fsync\r\n";
    for _ in 0..2 {
        assert_eq!(mode(&reflex.post(GOOD, "")), (202, "fsync".into()));
        assert_eq!(mode(&reflex.post(GOOD, need)), (202, "fsync".into()));
        let _: () = redis.ask("CONFIG|SET|no-appendfsync-on-rewrite|yes");
        until("it is noticed", || {
            (mode(&reflex.post(GOOD, "")) == (202, "redis".into())).then_some(())
        });
        let stored = redis.length(TASKS);
        assert_eq!(later(&reflex.post(GOOD, need)), "not_durable");
        assert_eq!(redis.length(TASKS), stored, "nothing was stored");
        let _: () = redis.ask("CONFIG|SET|no-appendfsync-on-rewrite|no");
        until("that it syncs again is noticed", || {
            (reflex.post(GOOD, need).status == 202).then_some(())
        });
    }
    // It may be on from the start as well.
    let from_start = [&always[..], &["--no-appendfsync-on-rewrite", "yes"]].concat();
    let redis = Redis::start_on(free_port(), &from_start);
    let reflex = Reflex::ready(&redis, &[]);
    assert_eq!(mode(&reflex.post(GOOD, "")), (202, "redis".into()));
    assert_eq!(later(&reflex.post(GOOD, need)), "not_durable");
}

#[test]
fn a_batch_of_several_lanes_has_a_barrier_in_each() {
    /// Batches that wait at the same time; what comes later forms the next one together.
    const CONNECTIONS: usize = 4;
    let redis = Redis::start();
    let replica = redis.start_replica();
    let topology = common::topology(&[("lanes: [l0]", "lanes: [l0, l1, l2]")]);
    let settings = [
        ("OCTOLLM_TOPOLOGY_FILE", topology.1.as_str()),
        ("OCTOLLM_REFLEX_DURABILITY", "replicated"),
        ("OCTOLLM_REFLEX_DURABILITY_WAIT_S", "20"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let post = |key: usize| reflex.post(GOOD, &format!("idempotency-key: k{key}\r\n"));
    let lane = |key: usize| task(&post(key)).split('-').next().unwrap().to_owned();
    let lanes: Vec<(usize, String)> = (0..60).map(|key| (key, lane(key))).collect();
    let of = |name: &str| {
        let keys = lanes.iter().filter(|(_, lane)| lane == name);
        keys.map(|(key, _)| *key).collect::<Vec<_>>()
    };
    let barriers = ["{l0}:barrier", "{l1}:barrier", "{l2}:barrier"];
    for barrier in barriers {
        let _: i64 = redis.ask(&format!("DEL|{barrier}"));
    }
    // Duplicates write nothing else that the replica could confirm.
    let first = &of("l0")[..CONNECTIONS];
    let rest = [&of("l0")[CONNECTIONS..], &of("l1"), &of("l2")].concat();
    replica.signal("STOP");
    std::thread::scope(|scope| {
        let (post, reflex) = (&post, &reflex);
        let mut posts: Vec<_> = Vec::new();
        for (sent, key) in first.iter().enumerate() {
            posts.push(scope.spawn(move || post(*key)));
            until("a connection waits", || {
                let clients: String = redis.ask("CLIENT|LIST|TYPE|NORMAL");
                // An idle connection also shows its last command, but is not blocked.
                let waits = |one: &&str| one.contains(" flags=b ") && one.contains(" cmd=wait ");
                (clients.lines().filter(waits).count() == sent + 1).then_some(())
            });
        }
        posts.extend(rest.iter().map(|key| scope.spawn(move || post(*key))));
        until("all are there", || {
            // The query of the counter is a request, too.
            let sent = (first.len() + rest.len()) as u64;
            (reflex.metric("octollm_http_in_flight") == sent + 1).then_some(())
        });
        replica.signal("CONT");
        for post in posts {
            assert_eq!(mode(&post.join().unwrap()), (202, "replicated(1)".into()));
        }
    });
    for barrier in barriers {
        let there: i64 = replica.ask(&format!("EXISTS|{barrier}"));
        assert_eq!(there, 1, "{barrier}");
    }
}

#[test]
fn stored_is_answered_once_the_orchestrator_has_published_an_event() {
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_REFLEX_DURABILITY", "stored"),
        ("OCTOLLM_REFLEX_DURABILITY_WAIT_S", "20"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let published = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let post = |headers: &'static str| {
            let (reflex, published) = (&reflex, &published);
            scope.spawn(move || {
                let answer = reflex.post(GOOD, headers);
                (answer, published.load(Ordering::SeqCst))
            })
        };
        let first = post(KEY);
        let id = until("it is written", || {
            let entry = redis.entries(TASKS).pop()?;
            Some(entry.field("id").to_owned())
        });
        // Weaker than what the deployment requires, so it changes nothing.
        let repeat = post("idempotency-key: k1\r\noctollm-durability: redis\r\n");
        until("both wait", || {
            (reflex.metric("octollm_http_in_flight") == 3).then_some(())
        });
        published.store(true, Ordering::SeqCst);
        // Event and status at once, as the script `complete` does it.
        redis.set_status(&id, "stored|1");
        redis.publish(&event(&id, 1, 1, "accepted"));
        for (waiting, duplicate) in [(first, false), (repeat, true)] {
            let (answer, published) = waiting.join().unwrap();
            assert_eq!(
                (mode(&answer), task(&answer)),
                ((202, "stored".into()), id.clone())
            );
            assert_eq!(answer.json()["duplicate"], duplicate);
            assert!(published, "answered before it was stored");
        }
        assert_eq!(mode(&reflex.post(GOOD, KEY)), (202, "stored".into()));
    });
}

#[test]
fn a_task_that_is_not_confirmed_in_time_is_named_in_the_problem() {
    let redis = Redis::start();
    let settings = [("OCTOLLM_REFLEX_DURABILITY_WAIT_S", "1")];
    let reflex = Reflex::ready(&redis, &settings);
    let need = format!("{KEY}octollm-durability: stored\r\n");
    let late = reflex.post(GOOD, &need);
    assert_eq!(later(&late), "unconfirmed");
    assert_eq!(redis.entries(TASKS)[0].field("id"), task(&late));
    assert_eq!(
        reflex.metric("octollm_admission_total{source=\"http\",outcome=\"unconfirmed\"}"),
        1
    );
    // The event was missed; the status confirms.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| reflex.post(GOOD, &need));
        until("it waits", || {
            (reflex.metric("octollm_http_in_flight") == 2).then_some(())
        });
        redis.set_status(&task(&late), "stored|1");
        let answer = waiting.join().unwrap();
        assert_eq!(
            (mode(&answer), task(&answer)),
            ((202, "stored".into()), task(&late))
        );
    });
    assert_eq!(redis.length(TASKS), 1);
    let other = reflex.post(br#"{"goal": "y"}"#, &need);
    assert_eq!(
        (other.status, other.problem().0),
        (422, "idempotency_key_reused".into())
    );
}

#[test]
fn a_duplicate_of_a_task_without_status_is_looked_up_in_postgres() {
    let redis = Redis::start();
    let api = Api::start();
    let settings = [
        ("OCTOLLM_API_URL", api.url.as_str()),
        ("OCTOLLM_REFLEX_DURABILITY_WAIT_S", "1"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let need = format!("{KEY}octollm-durability: stored\r\n");
    let id = task(&reflex.post(GOOD, KEY));
    let _: i64 = redis.ask(&format!("DEL|{{l0}}:status:{id}"));
    assert_eq!(later(&reflex.post(GOOD, &need)), "unconfirmed");
    api.answer(
        &format!("/v1/tasks/{id}"),
        200,
        &serde_json::json!({ "task": id }),
    );
    let known = reflex.post(GOOD, &need);
    assert_eq!((mode(&known), task(&known)), ((202, "stored".into()), id));
    assert!(api
        .requests()
        .iter()
        .all(|request| request.tenants == ["default"]));
}

#[test]
fn an_unknown_durability_is_refused() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    for wrong in [
        "auto",
        "replicated(0)",
        "replicated(17)",
        "stored,fsync",
        "",
    ] {
        let answer = reflex.post(GOOD, &format!("octollm-durability: {wrong}\r\n"));
        assert_eq!(answer.status, 400, "{wrong}");
        assert_eq!(
            answer.problem(),
            ("invalid_durability".into(), "OctoLLM-Durability".into())
        );
    }
    let twice = "octollm-durability: redis\r\noctollm-durability: redis\r\n";
    assert_eq!(reflex.post(GOOD, twice).status, 400);
    assert_eq!(redis.length(TASKS), 0);
    assert_eq!(
        mode(&reflex.post(GOOD, "octollm-durability: redis\r\n")),
        (202, "redis".into())
    );
}
