//! API keys, from their publication in Redis to the answer to a request.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::time::{Duration, Instant};

use common::keys::{bearer, Key};
use common::{free_port, until, Answer, Redis, Reflex};

const TASK: &[u8] = br#"{"goal": "x"}"#;
const NO_ANONYMOUS: (&str, &str) = ("OCTOLLM_REFLEX_ANONYMOUS", "off");

fn submit(reflex: &Reflex, headers: &str) -> Answer {
    reflex.post(TASK, headers)
}

/// The status and the code of a refused submission.
fn refusal(reflex: &Reflex, headers: &str) -> (u16, String) {
    let answer = submit(reflex, headers);
    (answer.status, answer.problem().0)
}

fn until_accepted(reflex: &Reflex, key: &Key) -> Answer {
    until("the key is known", || {
        let answer = submit(reflex, &key.header());
        (answer.status == 202).then_some(answer)
    })
}

fn now_ms(redis: &Redis) -> u64 {
    let (seconds, micros): (u64, u64) = redis.ask("TIME");
    seconds * 1000 + micros / 1000
}

#[test]
fn a_key_submits_as_its_tenant_until_it_is_revoked() {
    let redis = Redis::start();
    let (kept, revoked) = (
        Key::new("kept", "acme", &["submit"]),
        Key::new("revoked", "acme", &["submit"]),
    );
    redis.publish_keys(&[&kept, &revoked]);
    let reflex = Reflex::ready(&redis, &[NO_ANONYMOUS]);
    assert_eq!(until_accepted(&reflex, &revoked).json()["tenant"], "acme");
    let by_other_header = format!("x-api-key: {}\r\n", kept.text);
    assert_eq!(submit(&reflex, &by_other_header).status, 202);

    redis.publish_keys(&[&kept]);
    let begun = Instant::now();
    let after = until("the key is refused", || {
        let answer = submit(&reflex, &revoked.header());
        (answer.status != 202).then_some(answer)
    });
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        (after.status, after.problem().0.as_str()),
        (401, "invalid_credential")
    );
    assert_eq!(submit(&reflex, &kept.header()).status, 202);
    // Nothing tells a revoked key from one that never existed, or from a wrong secret.
    let unknown = Key::new("unknown", "acme", &["submit"]);
    for wrong in [
        unknown.text.clone(),
        kept.with_wrong_secret(),
        kept.text[1..].to_owned(),
    ] {
        let answer = submit(&reflex, &bearer(&wrong));
        let refused = (answer.status, answer.without_id());
        assert_eq!(refused, (401, after.without_id()), "{wrong}");
        assert!(
            answer.head.contains("www-authenticate: bearer"),
            "{answer:?}"
        );
    }
    let twice = format!("{}x-api-key: {}\r\n", kept.header(), kept.text);
    assert_eq!(submit(&reflex, &twice).without_id(), after.without_id());
    let missing = submit(&reflex, "");
    assert_eq!(
        (missing.status, missing.problem().0.as_str()),
        (401, "missing_credential")
    );
    assert!(
        missing.head.contains("www-authenticate: bearer\r\n"),
        "{missing:?}"
    );
    let count = |outcome| {
        reflex.metric(&format!(
            "octollm_authentications_total{{outcome=\"{outcome}\"}}"
        ))
    };
    assert!(count("accepted") >= 3 && count("invalid_credential") >= 5);
    assert_eq!(count("missing_credential"), 1);
}

#[test]
fn a_key_expires_by_the_clock_of_redis() {
    let redis = Redis::start();
    let key = Key::new("brief", "acme", &["submit"]).until(now_ms(&redis) + 3000);
    redis.publish_keys(&[&key]);
    let reflex = Reflex::ready(&redis, &[NO_ANONYMOUS]);
    until_accepted(&reflex, &key);
    let refused = until("the key has expired", || {
        let answer = submit(&reflex, &key.header());
        (answer.status != 202).then_some(answer)
    });
    assert_eq!(
        (refused.status, refused.problem().0.as_str()),
        (401, "expired_credential")
    );
    let wrong = bearer(&key.with_wrong_secret());
    assert_eq!(
        refusal(&reflex, &wrong),
        (401, "invalid_credential".to_owned())
    );
}

#[test]
fn a_key_that_cannot_be_checked_is_neither_accepted_nor_refused() {
    let redis = Redis::start();
    let key = Key::new("known", "acme", &["read"]);
    // Nothing was published yet.
    let reflex = Reflex::ready(&redis, &[]);
    let path = "/v1/tasks/l0-01h00000000000000000000000";
    let read = || reflex.request("GET", path, &key.header(), b"");
    let unavailable = read();
    assert_eq!(
        (unavailable.status, unavailable.problem().0.as_str()),
        (503, "credentials_unavailable")
    );
    assert!(
        unavailable.head.contains("retry-after: "),
        "{unavailable:?}"
    );
    assert_eq!(submit(&reflex, "").status, 202, "anonymous access goes on");
    redis.publish_keys(&[&key]);
    until("the key is known", || (read().status == 404).then_some(()));
    redis.ask::<i64>("DEL|{api-keys}|{api-keys}:version");
    until("the store was emptied", || {
        (read().status == 503).then_some(())
    });
    redis.publish_keys(&[&key]);
    until("the keys are back", || (read().status == 404).then_some(()));
    // While the version cannot be read, the last keys count for three seconds, and no longer.
    redis.signal("STOP");
    let begun = Instant::now();
    until("the keys are too old", || {
        (read().problem().0 == "credentials_unavailable").then_some(())
    });
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    redis.signal("CONT");
    until("the keys are known again", || {
        (read().status == 404).then_some(())
    });
}

#[test]
fn a_key_is_revoked_although_redis_is_full() {
    let redis = Redis::start();
    let key = Key::new("known", "acme", &["read"]);
    redis.publish_keys(&[&key]);
    let reflex = Reflex::ready(&redis, &[]);
    let read = || {
        reflex.request(
            "GET",
            "/v1/tasks/l0-01h00000000000000000000000",
            &key.header(),
            b"",
        )
    };
    until("the key is known", || (read().status == 404).then_some(()));
    let _: () = redis.ask("CONFIG|SET|maxmemory|1");
    redis.publish_keys(&[]);
    let refused = until("the key is refused", || {
        let answer = read();
        (answer.status != 404).then_some(answer)
    });
    assert_eq!(
        (refused.status, refused.problem().0.as_str()),
        (401, "invalid_credential")
    );
}

#[test]
fn a_broken_record_refuses_its_key_only_and_is_logged_once() {
    let redis = Redis::start();
    let (good, broken) = (
        Key::new("good", "acme", &["submit"]),
        Key::new("broken", "acme", &["submit", "everything"]),
    );
    let mut reflex = Reflex::ready(&redis, &[NO_ANONYMOUS]);
    for _ in 0..2 {
        redis.publish_records(&[
            ("not an id".to_owned(), "canary".to_owned()),
            (good.id.clone(), good.record.to_string()),
            (broken.id.clone(), broken.record.to_string()),
        ]);
        until_accepted(&reflex, &good);
        assert_eq!(
            refusal(&reflex, &broken.header()),
            (401, "invalid_credential".to_owned())
        );
        redis.publish_keys(&[]);
        until("no key is left", || {
            (submit(&reflex, &good.header()).status == 401).then_some(())
        });
    }
    let log = reflex.log();
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!(lines(&broken.id), 1, "{log:?}");
    assert_eq!((lines("not an id"), lines("canary")), (1, 0), "{log:?}");
}

#[test]
fn the_last_use_of_a_key_is_reported() {
    let redis = Redis::start();
    let (used, unused) = (
        Key::new("used", "acme", &["submit"]),
        Key::new("unused", "acme", &["submit"]),
    );
    redis.publish_keys(&[&used, &unused]);
    let begun = now_ms(&redis);
    let reflex = Reflex::ready(&redis, &[NO_ANONYMOUS]);
    until_accepted(&reflex, &used);
    let at: u64 = until("its use is reported", || {
        redis.ask(&format!("HGET|{{api-keys}}:used|{}", used.id))
    });
    assert!((begun..=now_ms(&redis)).contains(&at), "{at}");
    assert_eq!(redis.ask::<i64>("HLEN|{api-keys}:used"), 1);
}

#[test]
fn without_a_credential_only_a_loopback_address_answers_unless_it_is_configured() {
    let redis = Redis::start();
    let key = Key::new("known", "acme", &["submit"]);
    redis.publish_keys(&[&key]);
    let start = |listen: &str, anonymous: &str| {
        let settings = [
            ("OCTOLLM_REFLEX_LISTEN", listen),
            ("OCTOLLM_REFLEX_ANONYMOUS", anonymous),
        ];
        let mut reflex = Reflex::ready(&redis, &settings);
        let warned = reflex
            .log()
            .iter()
            .any(|line| line.contains("reflex.anonymous"));
        (reflex, warned)
    };
    let anywhere = || format!("0.0.0.0:{}", free_port());
    for (listen, anonymous, allowed, warned) in [
        ("127.0.0.1:0".to_owned(), "auto", true, false),
        ("127.0.0.1:0".to_owned(), "off", false, false),
        (anywhere(), "auto", false, false),
        (anywhere(), "on", true, true),
        (anywhere(), "off", false, false),
    ] {
        let (reflex, said) = start(&listen, anonymous);
        let case = format!("{listen} {anonymous}");
        let answer = submit(&reflex, "");
        assert_eq!(answer.status, if allowed { 202 } else { 401 }, "{case}");
        assert_eq!(said, warned, "{case}");
        assert_eq!(until_accepted(&reflex, &key).json()["tenant"], "acme");
        let wrong = bearer(&key.with_wrong_secret());
        assert_eq!(submit(&reflex, &wrong).status, 401, "{case}");
        assert_eq!(reflex.get("/metrics").status, 200, "{case}");
    }
}

#[test]
fn a_credential_may_come_under_any_host() {
    let redis = Redis::start();
    let key = Key::new("known", "acme", &["read"]);
    redis.publish_keys(&[&key]);
    let reflex = Reflex::ready(&redis, &[]);
    let get = |path: &str, header: &str| {
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: evil.test\r\nconnection: close\r\n{header}\r\n");
        reflex.send(head.as_bytes()).status
    };
    let path = "/v1/tasks/l0-01h00000000000000000000000";
    until("the key is known", || {
        (get(path, &key.header()) == 404).then_some(())
    });
    assert_eq!(get(path, ""), 403);
    assert_eq!(get(path, &bearer("guessed")), 401);
    // No credential is checked here, so none opens it to foreign hosts.
    assert_eq!(get("/metrics", &key.header()), 403);
}
