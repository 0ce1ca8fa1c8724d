//! Clients that send too much, too slowly or an incomplete request.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::io::Write;

use common::{Answer, Redis, Reflex};

const HEAD: &str =
    "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";

#[test]
fn requests_that_are_too_large_too_slow_or_broken_are_refused() {
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_REFLEX_BODY_LIMIT_BYTES", "1024"),
        ("OCTOLLM_REFLEX_BODY_TIMEOUT_S", "1"),
        ("OCTOLLM_REFLEX_HEADER_TIMEOUT_S", "1"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let status_of = |rest: &str| {
        let answer = reflex.send(format!("{HEAD}{rest}").as_bytes());
        (answer.status, answer.problem().0)
    };
    // Announced, but never sent.
    assert_eq!(
        status_of("content-length: 1025\r\n\r\n"),
        (413, "too_large".into())
    );
    // Not announced.
    let chunk = format!(
        "transfer-encoding: chunked\r\n\r\n800\r\n{}\r\n",
        "y".repeat(2048)
    );
    assert_eq!(status_of(&chunk), (413, "too_large".into()));
    assert_eq!(
        status_of("content-length: 20\r\n\r\n{\"goal\""),
        (408, "timeout".into())
    );
    let garbage = "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n";
    assert_eq!(status_of(garbage), (400, "incomplete_body".into()));
    // A head without an end: the connection is closed without an answer.
    let mut slow = reflex.connect();
    slow.write_all(b"POST /v1/tasks HTTP/1.1\r\nhost").unwrap();
    let ended = std::io::Read::read(&mut slow, &mut [0]);
    assert_eq!(ended.unwrap(), 0, "cut off, not waited for");
    assert_eq!(reflex.post(br#"{"goal": "x"}"#, "").status, 202);
    assert_eq!(redis.length("{l0}:tasks:normal"), 1);
}

#[test]
fn connections_beyond_the_limit_wait() {
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_REFLEX_MAX_CONNECTIONS", "1"),
        ("OCTOLLM_REFLEX_HEADER_TIMEOUT_S", "60"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    // Both send the same task; the one that is answered second is the duplicate.
    let request =
        format!("{HEAD}idempotency-key: k\r\ncontent-length: 13\r\n\r\n{{\"goal\": \"x\"}}");
    let (begin, rest) = request.split_at(HEAD.len());
    let mut first = reflex.connect();
    first.write_all(begin.as_bytes()).unwrap();
    let mut second = reflex.connect();
    second.write_all(request.as_bytes()).unwrap();
    // Time for a wrong answer. Without one, the length of this wait changes nothing.
    second
        .set_read_timeout(Some(std::time::Duration::from_millis(300)))
        .unwrap();
    assert!(second.peek(&mut [0]).is_err(), "answered before its turn");
    first.write_all(rest.as_bytes()).unwrap();
    second.set_read_timeout(Some(common::MAX_WAIT)).unwrap();
    let answers = [first, second].map(|mut one| Answer::read(&mut one));
    assert_eq!(
        answers.map(|one| (one.status, one.json()["duplicate"] == true)),
        [(202, false), (202, true)]
    );
}

#[test]
fn the_program_finishes_running_requests_before_it_exits() {
    let redis = Redis::start();
    let mut reflex = Reflex::ready(&redis, &[]);
    let mut running = reflex.connect();
    let head = format!("{HEAD}content-length: 13\r\nexpect: 100-continue\r\n\r\n");
    running.write_all(head.as_bytes()).unwrap();
    // The program is reading the body now.
    let mut hundred = [0; 25];
    std::io::Read::read_exact(&mut running, &mut hundred).unwrap();
    assert!(hundred.starts_with(b"HTTP/1.1 100"));
    reflex.request_stop();
    common::until("it stops listening", || {
        let text = reflex.log().join("");
        text.contains("stopping").then_some(())
    });
    running.write_all(br#"{"goal": "x"}"#).unwrap();
    assert_eq!(Answer::read(&mut running).status, 202);
    assert_eq!(reflex.exit_code(), Some(0));
}
