//! What every answer carries, and what is refused before it costs anything.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{until, Answer, Redis, Reflex};

const POST: &str =
    "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let start = format!("{name}: ");
    answer
        .head
        .lines()
        .find_map(|line| line.strip_prefix(&start))
}

#[test]
fn every_answer_has_the_id_of_its_request_and_so_do_problems_and_the_log() {
    let redis = Redis::start();
    let mut reflex = Reflex::ready(&redis, &[]);
    let accepted = reflex.post(br#"{"goal": "x"}"#, "x-request-id: order-7.a_b\r\n");
    assert_eq!(accepted.status, 202);
    assert_eq!(header(&accepted, "x-request-id"), Some("order-7.a_b"));
    let refused = reflex.post(b"{}", "x-request-id: order-8\r\n");
    assert_eq!(header(&refused, "x-request-id"), Some("order-8"));
    assert_eq!(refused.json()["request_id"], "order-8");
    let task = accepted.json()["task"].as_str().unwrap().to_owned();
    let path = format!("/v1/tasks/{task}");
    let refused = reflex.request("DELETE", &path, "x-request-id: order-9\r\n", b"[");
    assert_eq!(refused.json()["request_id"], "order-9");
    // What is not safe to log is replaced.
    let mut seen = Vec::new();
    for headers in ["", "x-request-id: a b\r\n", "x-request-id: {\"a\":1}\r\n"] {
        let answer = reflex.request("GET", "/nowhere", headers, b"");
        let id = header(&answer, "x-request-id").unwrap().to_owned();
        assert_eq!(answer.json()["request_id"], id.as_str());
        assert!(!headers.contains(&id) && !seen.contains(&id), "{id}");
        seen.push(id);
    }
    let mut lines = Vec::new();
    for (id, outcome) in [("order-7.a_b", "accepted"), ("order-8", "schema")] {
        until("the submission is logged", || {
            lines.extend(reflex.log());
            let (id, outcome) = (format!("\"{id}\""), format!("\"{outcome}\""));
            lines
                .iter()
                .any(|line| line.contains(&id) && line.contains(&outcome))
                .then_some(())
        });
    }
}

#[test]
fn a_method_that_is_not_supported_is_answered_with_those_that_are() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    for (method, path, allowed) in [
        ("PUT", "/v1/tasks", &["POST", "GET", "HEAD"][..]),
        ("PATCH", "/v1/tasks/x", &["GET", "HEAD", "DELETE"]),
        ("POST", "/v1/tasks/x/events", &["GET", "HEAD"]),
        ("GET", "/v1/webhooks/x", &["POST"]),
        ("POST", "/healthz", &["GET", "HEAD"]),
        ("DELETE", "/v1/costs", &["GET", "HEAD"]),
    ] {
        let answer = reflex.request(method, path, "", b"");
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.problem().0, "method_not_allowed");
        let mut listed: Vec<_> = header(&answer, "allow").unwrap().split(',').collect();
        let mut wanted: Vec<_> = allowed.iter().map(|name| name.to_lowercase()).collect();
        listed.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(listed, wanted, "{method} {path}");
    }
}

#[test]
fn every_503_says_when_to_come_back() {
    let redis = Redis::start();
    let api = format!("http://127.0.0.1:{}", common::free_port());
    let settings = [
        ("OCTOLLM_API_URL", api.as_str()),
        ("OCTOLLM_REFLEX_MAX_EVENT_STREAMS", "1"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let known = reflex.post(br#"{"goal": "x"}"#, "").json();
    let task = known["task"].as_str().unwrap();
    let unavailable = reflex.get("/v1/tasks");
    let disabled = reflex.request(
        "POST",
        "/v1/webhooks/github",
        "content-type: application/json\r\n",
        b"{}",
    );
    drop(redis);
    until("it is not ready", || {
        (reflex.get("/readyz").status == 503).then_some(())
    });
    let path = format!("/v1/tasks/{task}");
    for answer in [
        unavailable,
        disabled,
        reflex.get("/readyz"),
        reflex.post(br#"{"goal": "x"}"#, ""),
        reflex.get(&path),
        reflex.get(&format!("{path}/events")),
        reflex.request("DELETE", &path, "", b""),
        reflex.request("POST", &format!("{path}/runs"), "", b""),
    ] {
        assert_eq!(answer.status, 503, "{answer:?}");
        let seconds: u32 = header(&answer, "retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{answer:?}");
    }
}

#[test]
fn a_head_that_is_too_long_or_has_too_many_fields_is_refused() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let long = format!("{POST}x-long: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("{POST}{}\r\n", "x-many: x\r\n".repeat(120));
    for head in [long, many] {
        assert_eq!(reflex.send(head.as_bytes()).status, 431);
    }
    let fits = format!(
        "{POST}x-long: {}\r\ncontent-length: 13\r\n\r\n{{\"goal\": \"x\"}}",
        "x".repeat(30_000)
    );
    assert_eq!(reflex.send(fits.as_bytes()).status, 202);
}

#[test]
fn submissions_beyond_the_limit_are_shed_and_reads_go_on() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_REFLEX_MAX_SUBMISSIONS", "1")]);
    let mut first = reflex.connect();
    let body = br#"{"goal": "x"}"#;
    let head = format!("{POST}content-length: 13\r\nexpect: 100-continue\r\n\r\n");
    first.write_all(head.as_bytes()).unwrap();
    let mut hundred = [0; 25];
    first.read_exact(&mut hundred).unwrap();
    // It is being read now.
    let shed = reflex.post(body, "");
    assert_eq!((shed.status, shed.problem().0), (503, "overloaded".into()));
    assert_eq!(header(&shed, "retry-after"), Some("1"));
    assert_eq!(reflex.get("/readyz").status, 200);
    first.write_all(body).unwrap();
    assert_eq!(Answer::read(&mut first).status, 202);
    assert_eq!(reflex.post(body, "").status, 202);
    let counted = "octollm_admission_total{source=\"http\",outcome=\"overloaded\"}";
    assert_eq!(reflex.metric(counted), 1);
}

#[test]
fn pages_of_other_origins_need_to_be_named() {
    let redis = Redis::start();
    let preflight = "origin: https://app.example.org\r\naccess-control-request-method: POST\r\n\
                     access-control-request-headers: content-type,idempotency-key\r\n";
    let json = "content-type: application/json\r\n";
    let page = format!("{json}origin: https://app.example.org\r\n");
    let off = Reflex::ready(&redis, &[]);
    let answer = off.request("OPTIONS", "/v1/tasks", preflight, b"");
    assert!(!answer.head.contains("access-control-allow"), "{answer:?}");
    let answer = off.request("POST", "/v1/tasks", &page, br#"{"goal": "x"}"#);
    assert_eq!(answer.status, 403);
    assert!(!answer.head.contains("access-control-allow"), "{answer:?}");

    let origins = "https://app.example.org, http://localhost:3000";
    let on = Reflex::ready(&redis, &[("OCTOLLM_REFLEX_CORS_ORIGINS", origins)]);
    let allowed = "access-control-allow-origin: https://app.example.org";
    let answer = on.request("OPTIONS", "/v1/tasks", preflight, b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    for line in [
        allowed,
        "access-control-allow-methods: get,post,delete",
        "idempotency-key",
    ] {
        assert!(answer.head.contains(line), "{line}: {answer:?}");
    }
    assert!(!answer.head.contains("access-control-allow-credentials"));
    let answer = on.request("POST", "/v1/tasks", &page, br#"{"goal": "x"}"#);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert!(answer.head.contains(allowed), "{answer:?}");
    let other = format!("{json}origin: https://evil.example.org\r\n");
    let answer = on.request("POST", "/v1/tasks", &other, br#"{"goal": "x"}"#);
    assert_eq!(answer.status, 403);
    assert!(
        !answer.head.contains("access-control-allow-origin"),
        "{answer:?}"
    );
}

/// Sends `drip` byte by byte until the server closes the connection; returns how long that took and what it answered.
fn drip(reflex: &Reflex, first: &str, drip: u8) -> (Duration, Answer) {
    let mut stream = reflex.connect();
    stream.write_all(first.as_bytes()).unwrap();
    let mut reading = stream.try_clone().unwrap();
    let begun = Instant::now();
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| Answer::read(&mut reading));
        while !answer.is_finished() && stream.write_all(&[drip]).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
        answer.join().unwrap()
    });
    (begun.elapsed(), answer)
}

#[test]
fn a_client_that_sends_byte_by_byte_is_cut_off_in_time() {
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_REFLEX_HEADER_TIMEOUT_S", "1"),
        ("OCTOLLM_REFLEX_BODY_TIMEOUT_S", "1"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let (took, answer) = drip(
        &reflex,
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
        b'x',
    );
    assert_eq!(answer.status, 0, "{answer:?}");
    assert!(took < Duration::from_secs(6), "head: {took:?}");
    let begin = format!("{POST}content-length: 100000\r\n\r\n{{\"goal\": \"");
    let (took, answer) = drip(&reflex, &begin, b'x');
    assert_eq!((answer.status, answer.problem().0), (408, "timeout".into()));
    assert!(took < Duration::from_secs(10), "body: {took:?}");
    let begin = format!("{POST}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n");
    let (took, answer) = drip(&reflex, &begin, b'0');
    assert!([400, 408].contains(&answer.status), "{answer:?}");
    assert!(took < Duration::from_secs(10), "chunk size: {took:?}");
    assert_eq!(reflex.post(br#"{"goal": "x"}"#, "").status, 202);
}

#[test]
fn chunks_without_end_are_refused_at_the_limit() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let mut stream = reflex.connect();
    stream
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let head = format!("{POST}transfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut reading = stream.try_clone().unwrap();
    let chunk = [b"10000\r\n", &vec![b'x'; 0x10000][..], b"\r\n"].concat();
    let begun = Instant::now();
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| Answer::read(&mut reading));
        while !answer.is_finished() && stream.write_all(&chunk).is_ok() {}
        answer.join().unwrap()
    });
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}
