//! Who may do what: every route and the event stream with every kind of credential.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;
#[path = "common/tenants.rs"]
mod stage;

use std::time::{Duration, Instant};

use common::api::{Api, Received};
use common::events::Events;
use common::keys::{bearer, Key};
use common::{until, Answer, Redis, Reflex, API_SECRET};
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;
use stage::Stage;

/// Every route, the scope that it needs, and whether the API answers it.
const ROUTES: [((&str, &str), &str, bool); 18] = [
    (("POST", "/v1/tasks"), "submit", false),
    (("POST", "/v1/tasks:batch"), "submit", false),
    (("GET", "/v1/tasks/TASK"), "read", false),
    (("GET", "/v1/tasks/TASK?wait=1s"), "read", false),
    (("HEAD", "/v1/tasks/TASK"), "read", false),
    (("GET", "/v1/tasks/TASK/events"), "read", false),
    (("GET", "/v1/tasks"), "read", true),
    (("GET", "/v1/tasks/TASK/runs"), "read", true),
    (("GET", "/v1/tasks/TASK/steps"), "read", true),
    (
        ("GET", "/v1/tasks/l0-01h00000000000000000000000"),
        "read",
        true,
    ),
    (("GET", "/v1/dead-letters"), "read", true),
    (("GET", "/v1/dead-letters/7"), "read", true),
    (("GET", "/v1/costs?group=kind"), "read", true),
    (("POST", "/v1/tasks/TASK/runs"), "operate", false),
    (("DELETE", "/v1/dead-letters/7"), "operate", true),
    (("POST", "/v1/callbacks/7/redeliver"), "operate", true),
    (("POST", "/v1/callback-endpoints/7/enable"), "operate", true),
    (("DELETE", "/v1/tasks/TASK"), "cancel", false),
];

#[test]
fn a_route_answers_only_a_credential_that_allows_it() {
    let stage = Stage::new();
    let unknown = Key::new("unknown", "acme", &["admin"]);
    let invalid = stage.submit(&bearer("x")).without_id();
    for (route, scope, _) in ROUTES {
        for (credential, code) in [
            (String::new(), "missing_credential"),
            (stage.revoked.header(), "invalid_credential"),
            (unknown.header(), "invalid_credential"),
            (
                bearer(&stage.right.with_wrong_secret()),
                "invalid_credential",
            ),
            (stage.expired.header(), "expired_credential"),
        ] {
            let answer = stage.ask(route, &credential);
            assert_eq!(answer.status, 401, "{route:?} {code}: {answer:?}");
            assert!(
                answer.head.contains("www-authenticate: bearer"),
                "{answer:?}"
            );
            if route.0 != "HEAD" {
                assert_eq!(answer.problem().0, code, "{route:?}");
            }
            if code == "invalid_credential" && route.0 != "HEAD" {
                assert_eq!(answer.without_id(), invalid, "{route:?}");
            }
        }
        if scope == "read" {
            continue;
        }
        let answer = stage.ask(route, &stage.reader.header());
        assert_eq!(
            (answer.status, answer.problem().0.as_str()),
            (403, "insufficient_scope"),
            "{route:?}"
        );
        let detail = answer.json()["detail"].clone();
        assert!(detail.as_str().unwrap().ends_with(scope), "{detail}");
        assert!(
            answer.head.contains(&format!("scope=\"{scope}\"")),
            "{answer:?}"
        );
    }
    assert_eq!(stage.status_of(&stage.task), "accepted");
    assert!(stage.api.requests().is_empty(), "nothing was forwarded");
}

#[test]
fn what_belongs_to_another_tenant_does_not_exist() {
    let stage = Stage::new();
    stage.api.answer("/v1/tasks", 200, &json!({"items": []}));
    for (route, _, is_forwarded) in ROUTES {
        let before = stage.api.requests().len();
        let answer = stage.ask(route, &stage.other.header());
        if route == ("POST", "/v1/tasks") {
            assert_eq!(answer.json()["tenant"], "other");
            continue;
        }
        if route.1 == "/v1/tasks:batch" {
            assert_eq!(answer.json()["items"][0]["tenant"], "other");
            continue;
        }
        let expected = if route == ("GET", "/v1/tasks") {
            200
        } else {
            404
        };
        assert_eq!(answer.status, expected, "{route:?}: {answer:?}");
        let forwarded: Vec<Received> = stage.api.requests().split_off(before);
        assert_eq!(!forwarded.is_empty(), is_forwarded, "{route:?}");
        for request in forwarded {
            assert!(request.callers[0].contains(";tenant=other;"), "{request:?}");
        }
    }
    assert_eq!(stage.status_of(&stage.task), "accepted");
}

#[test]
fn the_right_credential_reaches_everything_of_its_tenant() {
    let stage = Stage::new();
    stage
        .api
        .answer("/v1/dead-letters/7", 200, &json!({"id": 7}));
    for path in ["/v1/tasks", "/v1/dead-letters", "/v1/costs"] {
        stage.api.answer(path, 200, &json!({"items": []}));
    }
    for (route, _, _) in ROUTES {
        let answer = stage.ask(route, &stage.right.header());
        // The stand-in of the API knows none of these.
        let unknown = route.1.contains("01h0")
            || route.1.starts_with("/v1/callback")
            || route.1.ends_with("/steps")
            || route == ("GET", "/v1/tasks/TASK/runs");
        let expected = match route {
            _ if unknown => 404,
            ("POST", "/v1/tasks") | ("DELETE", _) => 202,
            _ => 200,
        };
        assert_eq!(answer.status, expected, "{route:?}: {answer:?}");
    }
}

#[test]
fn the_api_can_verify_who_asks() {
    let stage = Stage::new();
    stage.api.answer("/v1/costs", 200, &json!({"items": []}));
    let path = "/v1/costs?group=kind";
    let own_header = format!(
        "{}octollm-caller: v1;tenant=default\r\n",
        stage.reader.header()
    );
    assert_eq!(stage.ask(("GET", path), &own_header).status, 200);
    let request = stage.api.requests().pop().unwrap();
    let [header] = &request.callers[..] else {
        panic!("{request:?}")
    };
    let (claims, mac) = header.rsplit_once(";mac=").unwrap();
    let fields: Vec<&str> = claims.split(';').collect();
    assert_eq!(
        (fields[0], &fields[2..]),
        ("v1", &["tenant=acme", "scopes=read"][..])
    );
    let exp = fields[1].strip_prefix("exp=").unwrap();
    let now: (u64, u64) = stage.redis.ask("TIME");
    assert!(
        (now.0 + 20..=now.0 + 30).contains(&exp.parse().unwrap()),
        "{header}"
    );
    let signed = format!("v1\n{exp}\nacme\nread\nGET\n{path}");
    let mut expected = Hmac::<Sha256>::new_from_slice(API_SECRET.as_bytes()).unwrap();
    expected.update(signed.as_bytes());
    assert_eq!(mac, hex::encode(expected.finalize().into_bytes()));
    // What the reflex itself has to know is asked for with the scope read, whatever the key allows.
    let canceller = Key::new("canceller", "acme", &["cancel"]);
    stage.redis.publish_keys(&[&canceller]);
    let unknown = ("DELETE", "/v1/tasks/l0-01h00000000000000000000000");
    until("the key is known", || {
        (stage.ask(unknown, &canceller.header()).status == 404).then_some(())
    });
    let request = stage.api.requests().pop().unwrap();
    assert!(
        request.callers[0].contains(";tenant=acme;scopes=read;"),
        "{request:?}"
    );
}

#[test]
fn without_a_secret_only_anonymous_reads_are_forwarded() {
    let redis = Redis::start();
    let api = Api::start();
    api.answer("/v1/costs", 200, &json!({}));
    let key = Key::new("reader", "default", &["read"]);
    redis.publish_keys(&[&key]);
    let settings = [
        ("OCTOLLM_API_URL", api.url.as_str()),
        ("OCTOLLM_API_SECRET", ""),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    assert_eq!(reflex.get("/v1/costs").status, 200);
    assert!(api.requests().pop().unwrap().callers.is_empty());
    let answer = until("the key is known", || {
        let answer = reflex.request("GET", "/v1/costs", &key.header(), b"");
        (answer.problem().0 != "credentials_unavailable").then_some(answer)
    });
    assert_eq!(
        (answer.status, answer.problem().0.as_str()),
        (503, "api_not_configured")
    );
    let detail = answer.json()["detail"].clone();
    assert!(
        detail.as_str().unwrap().contains("OCTOLLM_API_SECRET"),
        "{detail}"
    );
    assert_eq!(api.requests().len(), 1);
}

#[test]
fn an_event_stream_ends_when_its_key_is_revoked_or_expires() {
    let stage = Stage::new();
    let path = format!("/v1/tasks/{}/events", stage.task);
    let (right, reader) = (&stage.right, &stage.reader);
    let mut revoked = Events::open(&stage.reflex, &path, &reader.header());
    let mut kept = Events::open(&stage.reflex, &path, &right.header());
    assert_eq!((revoked.status, kept.status), (200, 200));
    stage.redis.publish_keys(&[right]);
    let begun = Instant::now();
    assert_eq!(revoked.next_with_id(), None);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );

    let now: (u64, u64) = stage.redis.ask("TIME");
    let brief = reader.clone().until((now.0 + 3) * 1000);
    stage.redis.publish_keys(&[right, &brief]);
    let mut expired = until("the key is known", || {
        let stream = Events::open(&stage.reflex, &path, &brief.header());
        (stream.status == 200).then_some(stream)
    });
    assert_eq!(expired.next_with_id(), None);
    let now: (u64, u64) = stage.redis.ask("TIME");
    assert!(now.0 * 1000 + now.1 / 1000 >= brief.record["expires_at_ms"].as_u64().unwrap());
    // The other one is still open.
    let mut event = common_event(&stage.task);
    event["tenant"] = "acme".into();
    stage.redis.publish(&event);
    assert_eq!(
        kept.next_with_id().map(|event| event.id),
        Some("1-1".to_owned())
    );
}

fn common_event(task: &str) -> serde_json::Value {
    common::history::event(task, 1, 1, "planned")
}

#[test]
fn no_output_contains_a_key_or_the_secret() {
    let mut stage = Stage::new();
    let wrong = stage.right.with_wrong_secret();
    let mut seen = String::new();
    for (route, _, _) in ROUTES {
        for token in [
            &stage.right.text,
            &stage.expired.text,
            &stage.revoked.text,
            &wrong,
        ] {
            for headers in [bearer(token), format!("x-api-key: {token}\r\n")] {
                let answer = stage.ask(route, &headers);
                seen += &answer.head;
                seen += &answer.body;
            }
        }
    }
    // A key in the wrong place.
    let body = format!("{{\"goal\": \"x\", \"surplus\": \"{wrong}\"}}");
    seen += &stage
        .reflex
        .post(body.as_bytes(), &stage.right.header())
        .body;
    seen += &stage.reflex.get("/metrics").body;
    for stream in ["{l0}:tasks:normal", "{l0}:steps.done", "{l0}:dead"] {
        let entries = stage.redis.entries(stream);
        seen.extend(entries.iter().map(common::Entry::all));
    }
    seen += &stage
        .redis
        .ask::<Vec<String>>("HGETALL|{api-keys}:used")
        .join(" ");
    stage.reflex.request_stop();
    assert_eq!(stage.reflex.exit_code(), Some(0));
    let log = stage.reflex.log().join("\n");
    assert!(log.contains(&stage.right.id), "the log names the key's id");
    seen += &log;
    for key in [&stage.right, &stage.reader, &stage.expired, &stage.revoked] {
        let secret = key.text.rsplit_once('_').unwrap().1;
        // Without its last character, so that the wrong one is found too.
        assert!(!seen.contains(&secret[..secret.len() - 1]), "{}", key.id);
    }
    assert!(!seen.contains(&API_SECRET[..30]));
}

#[test]
fn a_waiting_read_is_refused_when_its_key_is_revoked_meanwhile() {
    let stage = Stage::new();
    let (right, reader) = (&stage.right, &stage.reader);
    let path = format!("/v1/tasks/{}", stage.task);
    let waiting = format!("{path}?wait=55s");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| get_as(&stage.reflex, &waiting, reader));
        until("it waits", || {
            (stage.reflex.metric("octollm_http_in_flight") == 2).then_some(())
        });
        stage.redis.publish_keys(&[right]);
        until("the key is revoked", || {
            (get_as(&stage.reflex, &path, reader).status == 401).then_some(())
        });
        stage
            .redis
            .set_status(&stage.task, "state|succeeded|version|2");
        let finished = json!({
            "task": stage.task, "run": 1, "seq": 1, "tenant": "acme", "at": "2026-01-31T12:00:00.000Z",
            "event": "finished", "state": "succeeded",
        });
        stage.redis.publish(&finished);
        let answer = waiting.join().unwrap();
        assert_eq!(
            (answer.status, answer.problem().0.as_str()),
            (401, "invalid_credential")
        );
    });
}

fn get_as(reflex: &Reflex, path: &str, key: &Key) -> Answer {
    reflex.request("GET", path, &key.header(), b"")
}
