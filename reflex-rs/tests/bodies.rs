//! How a body may be written: content encodings and byte order marks, over HTTP, as a webhook and on an ingest stream.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use common::{until, Answer, Redis, Reflex};
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::Compression;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const TASKS: &str = "{l0}:tasks:normal";
const BODY: &[u8] = br#"{"goal": "x"}"#;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn encoded(reflex: &Reflex, encoding: &str, body: &[u8]) -> Answer {
    reflex.post(
        body,
        &format!("content-encoding: {encoding}\r\nidempotency-key: k\r\n"),
    )
}

#[test]
fn an_encoded_body_is_the_same_task_as_a_plain_one() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    let plain = reflex.post(BODY, "idempotency-key: k\r\n");
    assert_eq!(plain.status, 202, "{plain:?}");
    for (encoding, body) in [
        ("gzip", gzip(BODY)),
        ("X-GZIP", gzip(BODY)),
        ("deflate", zlib(BODY)),
        ("identity", BODY.to_vec()),
    ] {
        let answer = encoded(&reflex, encoding, &body);
        assert_eq!(answer.status, 202, "{encoding}: {answer:?}");
        assert_eq!(answer.json()["task"], plain.json()["task"], "{encoding}");
        assert_eq!(answer.json()["duplicate"], true, "{encoding}");
    }
    assert_eq!(redis.length(TASKS), 1);
    let task = plain.json()["task"].as_str().unwrap().to_owned();
    let reason = gzip(br#"{"detail": "no longer needed"}"#);
    let headers = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    let cancelled = reflex.request("DELETE", &format!("/v1/tasks/{task}"), headers, &reason);
    assert_eq!(cancelled.status, 202, "{cancelled:?}");
}

#[test]
fn other_encodings_and_broken_ones_are_refused_by_name() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    for (encoding, body) in [
        ("br", BODY.to_vec()),
        ("zstd", BODY.to_vec()),
        ("gzip, gzip", gzip(&gzip(BODY))),
        ("gzip\r\ncontent-encoding: deflate", zlib(&gzip(BODY))),
    ] {
        let answer = encoded(&reflex, encoding, &body);
        let problem = ("unsupported_encoding".into(), "Content-Encoding".into());
        assert_eq!((answer.status, answer.problem()), (415, problem));
        let accepted = "accept-encoding: gzip, deflate, identity";
        assert!(answer.head.contains(accepted), "{answer:?}");
    }
    let whole = gzip(BODY);
    for broken in [&whole[..whole.len() - 4], BODY, b""] {
        let answer = encoded(&reflex, "gzip", broken);
        let problem = ("malformed".into(), "body".into());
        assert_eq!((answer.status, answer.problem()), (400, problem));
    }
    assert_eq!(redis.length(TASKS), 0);
    let plain = reflex.request("POST", "/v1/tasks", "content-type: text/plain\r\n", b"{}");
    assert_eq!(plain.status, 415);
    assert!(plain.head.contains("accept: application/json"), "{plain:?}");
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    // A hundred megabytes in a hundred kilobytes.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    let spaces = vec![b' '; 1024 * 1024];
    for _ in 0..100 {
        bomb.write_all(&spaces).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1024 * 1024, "{}", bomb.len());
    let begun = Instant::now();
    for _ in 0..8 {
        let answer = encoded(&reflex, "gzip", &bomb);
        assert_eq!(
            (answer.status, answer.problem().0),
            (413, "too_large".into())
        );
    }
    // Each of them takes a few milliseconds; unpacking them all, far longer.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(redis.length(TASKS), 0);
}

#[test]
fn a_byte_order_mark_is_ignored_from_every_source_and_utf_16_is_named() {
    let redis = Redis::start();
    let secret = format!("whsec_{}", BASE64.encode([7; 32]));
    let (_folder, file) = sources();
    let settings = [
        ("OCTOLLM_WEBHOOKS_FILE", file.as_str()),
        ("BODIES_SECRET", secret.as_str()),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let marked = [b"\xef\xbb\xbf", BODY].concat();
    assert_eq!(reflex.post(&marked, "").status, 202);
    let event = [
        b"\xef\xbb\xbf",
        &br#"{"type": "note.given", "text": "y"}"#[..],
    ]
    .concat();
    let delivered = deliver(&reflex, &event, "");
    assert_eq!(delivered.status, 202, "{delivered:?}");
    redis.ask_raw::<String>(&[b"XADD", b"ingest:default", b"*", b"body", &marked]);
    until("all three are stored", || {
        (redis.length(TASKS) == 3).then_some(())
    });
    for body in [&b"\xff\xfe{\0\"\0}\0"[..], b"\xfe\xff\0{\0}", b"{\0\"\0g\0"] {
        let answer = reflex.post(body, "");
        assert_eq!(
            (answer.status, answer.problem().0),
            (400, "malformed".into())
        );
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("UTF-16"), "{detail}");
    }
    let answer = deliver(&reflex, &event, "content-encoding: gzip\r\n");
    assert_eq!(answer.problem().0, "unsupported_encoding");
    assert!(answer.head.contains("accept-encoding: identity"));
}

/// A file with one webhook source.
fn sources() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("webhooks.yaml");
    let text = r"version: 1
sources:
  bodies:
    description: notes of a program that writes a byte order mark
    scheme: standard
    tenant: default
    secrets: [env:BODIES_SECRET]
    events:
      note.given:
        kind: note
        goal: Keep a note
        input:
          text: /text
";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// Delivers a signed webhook; `headers` are whole lines.
fn deliver(reflex: &Reflex, body: &[u8], headers: &str) -> Answer {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
    mac.update(format!("d-1.{now}.").as_bytes());
    mac.update(body);
    let signature = BASE64.encode(mac.finalize().into_bytes());
    let head = format!(
        "content-type: application/json\r\nwebhook-id: d-1\r\nwebhook-timestamp: {now}\r\n\
         webhook-signature: v1,{signature}\r\n{headers}"
    );
    reflex.request("POST", "/v1/webhooks/bodies", &head, body)
}
