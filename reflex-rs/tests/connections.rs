//! Connections: each phase has its own time limit, answers arrive whatever the client does, and no client holds all slots.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use common::{until, Answer, Redis, Reflex};

const POST: &str =
    "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

/// Reads one response with a content length and leaves the connection open.
fn response(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1)?;
    let length = length.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head)
}

#[test]
fn an_idle_connection_is_kept_as_long_as_announced() {
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_REFLEX_HEADER_TIMEOUT_S", "1"),
        ("OCTOLLM_REFLEX_IDLE_TIMEOUT_S", "4"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let mut stream = reflex.connect();
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).unwrap();
    let head = response(&mut stream).unwrap();
    assert!(head.contains("keep-alive: timeout=4"), "{head}");
    // Longer than a head may take, shorter than the announced time.
    std::thread::sleep(Duration::from_millis(2500));
    stream.write_all(request).unwrap();
    assert!(response(&mut stream).is_some(), "closed too early");
    let idle = Instant::now();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(
        idle.elapsed() >= Duration::from_secs(3),
        "{:?}",
        idle.elapsed()
    );
    // A slow head is still cut off by its own limit.
    let mut slow = reflex.connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost").unwrap();
    let begun = Instant::now();
    assert_eq!(slow.read(&mut [0]).unwrap(), 0);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn clients_that_do_not_read_or_send_do_not_hold_all_slots() {
    let redis = Redis::start();
    let settings = [
        ("OCTOLLM_REFLEX_MAX_CONNECTIONS", "3"),
        ("OCTOLLM_REFLEX_IDLE_TIMEOUT_S", "3600"),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20_000);
    let mut held: Vec<TcpStream> = (0..3).map(|_| reflex.connect()).collect();
    for stream in &mut held {
        stream
            .set_write_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        // Fails once nothing more is taken: the server waits for the client to read.
        let _ = stream.write_all(&request);
    }
    held.push(reflex.connect());
    held.push(reflex.connect());
    let begun = Instant::now();
    assert_eq!(reflex.get("/healthz").status, 200);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn an_early_answer_is_read_by_a_client_that_sends_everything_first() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let megabytes = vec![b'x'; 30 * 1024 * 1024];
    for (start, status) in [
        (POST, 413),
        (
            "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n",
            415,
        ),
        ("POST /v1/nothing HTTP/1.1\r\nhost: localhost\r\n", 405),
        (
            "POST /v1/tasks HTTP/1.1\r\nhost: evil.test\r\ncontent-type: application/json\r\n",
            403,
        ),
        (
            "POST /v1/webhooks/none HTTP/1.1\r\nhost: localhost\r\n",
            404,
        ),
    ] {
        let mut stream = reflex.connect();
        let head = format!("{start}content-length: {}\r\n\r\n", megabytes.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&megabytes).unwrap();
        let answer = response(&mut stream).unwrap();
        assert!(
            answer.starts_with(&format!("http/1.1 {status}")),
            "{answer}"
        );
        // The connection can be used again.
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .unwrap();
        assert!(response(&mut stream).unwrap().starts_with("http/1.1 200"));
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_gets_the_early_answer_alone() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let head = format!("{POST}content-length: 30000000\r\nexpect: 100-continue\r\n\r\n");
    let begun = Instant::now();
    let answer = reflex.send(head.as_bytes());
    assert_eq!(answer.status, 413);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_client_that_has_closed_its_side_gets_its_answer() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    for _ in 0..20 {
        let mut stream = reflex.connect();
        let request = format!("{POST}content-length: 13\r\n\r\n{{\"goal\": \"x\"}}");
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Answer::read(&mut stream).status, 202);
    }
    assert_eq!(redis.length("{l0}:tasks:normal"), 20);
}

#[test]
fn a_task_and_its_outcome_outlive_a_client_that_leaves() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    redis.signal("STOP");
    let request = format!("{POST}content-length: 13\r\n\r\n{{\"goal\": \"x\"}}");
    for resets in [true, true, false] {
        let mut stream = reflex.connect();
        stream.write_all(request.as_bytes()).unwrap();
        if resets {
            // A client that only closes its side may still read; this one is gone.
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
    }
    let ended = || {
        let of = |outcome| {
            reflex.metric(&format!(
                "octollm_admission_total{{source=\"http\",outcome=\"{outcome}\"}}"
            ))
        };
        of("unconfirmed") + of("accepted") + of("store_unavailable")
    };
    until("every outcome is counted", || (ended() == 3).then_some(()));
    redis.signal("CONT");
    reflex.until_ready();
}

#[test]
fn foreign_hosts_are_refused_on_a_loopback_address() {
    let redis = Redis::start();
    let settings = [("OCTOLLM_REFLEX_URL", "https://octollm.example.org")];
    let reflex = Reflex::ready(&redis, &settings);
    let ask = |headers: &str| {
        let request = format!("GET /v1/tasks HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        reflex.send(request.as_bytes())
    };
    for headers in [
        "host: evil.test:8080\r\n",
        "host: localhost\r\norigin: http://evil.test\r\n",
        "host: localhost\r\norigin: null\r\n",
    ] {
        let answer = ask(headers);
        assert_eq!(
            (answer.status, answer.problem().0),
            (403, "foreign_host".into())
        );
    }
    for headers in [
        "host: octollm.example.org\r\n",
        "host: [::1]:1\r\norigin: http://localhost:3000\r\n",
    ] {
        assert_eq!(ask(headers).problem().0, "api_not_configured");
    }
    let refused = reflex.metric("octollm_requests_total{route=\"any\",outcome=\"foreign_host\"}");
    assert_eq!(refused, 3);
}
