//! TLS and HTTP/2 on the reflex's own port, as curl uses them.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

#[path = "../../tests/certificates.rs"]
mod certificates;
mod common;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{Request, Response, Version};
use common::{until, Redis, Reflex};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Runs curl until it ends; `arguments` are separated by spaces.
fn curl(arguments: &str, url: &str) -> Output {
    Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30"])
        .args(arguments.split(' '))
        .arg(url)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A certificate for 127.0.0.1 in `folder`: the authority's, the server's and its key.
fn certificate(folder: &Path, name: &str) -> [String; 3] {
    let folder = folder.join(name);
    std::fs::create_dir(&folder).unwrap();
    let ca = certificates::authority(&folder, "ca");
    certificates::serve_tls(&ca, 0);
    [ca, folder.join("server.crt"), folder.join("server.key")]
        .map(|path| path.to_str().unwrap().to_owned())
}

#[test]
fn tasks_are_submitted_over_tls_with_either_protocol_and_a_new_certificate_is_loaded() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let [ca, file, key] = certificate(folder.path(), "first");
    let port = common::free_port();
    let listen = format!("127.0.0.1:{port}");
    let settings = [
        ("OCTOLLM_REFLEX_LISTEN", listen.as_str()),
        ("OCTOLLM_REFLEX_TLS_CERTIFICATE_FILE", &file),
        ("OCTOLLM_REFLEX_TLS_KEY_FILE", &key),
        ("OCTOLLM_REFLEX_HEADER_TIMEOUT_S", "1"),
    ];
    let mut reflex = Reflex::start_with(&redis.url(), &settings);
    let checked = until("it is ready", || {
        let checked = common::run(&["--healthcheck"], &settings);
        (checked.status.code() == Some(0)).then_some(checked)
    });
    assert_eq!(checked.stdout, b"{\"ready\":true,\"reasons\":[]}\n");
    let url = format!("https://{listen}/v1/tasks");
    let submit = "--json {\"goal\":\"x\"} --write-out \\n%{http_version}_%{http_code}";
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = text(&curl(&format!("{protocol} --cacert {ca} {submit}"), &url));
        assert!(answer.ends_with(&format!("{version}_202")), "{answer}");
    }
    assert_eq!(redis.length("{l0}:tasks:normal"), 2);
    // A client that never finishes its handshake, and one that speaks no TLS.
    for begin in [&b"\x16\x03\x01\x02\x00"[..], b"GET /healthz HTTP/1.1\r\n"] {
        let mut stream = std::net::TcpStream::connect(&listen).unwrap();
        stream.set_read_timeout(Some(common::MAX_WAIT)).unwrap();
        stream.write_all(begin).unwrap();
        let begun = Instant::now();
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "{:?}",
            begun.elapsed()
        );
    }

    let [new_ca, new_file, new_key] = certificate(folder.path(), "second");
    let unknown = curl(
        &format!("--cacert {new_ca}"),
        &format!("https://{listen}/healthz"),
    );
    assert!(!unknown.status.success());
    // A key that does not belong to the certificate changes nothing.
    std::fs::copy(&new_key, &key).unwrap();
    until("the key is refused", || {
        let said = reflex.log().join("\n");
        said.contains("the new certificate cannot be used")
            .then_some(())
    });
    let health = format!("https://{listen}/healthz");
    text(&curl(&format!("--cacert {ca}"), &health));
    std::fs::copy(&new_file, &file).unwrap();
    until("the new certificate is used", || {
        let answer = curl(&format!("--cacert {new_ca}"), &health);
        answer.status.success().then_some(())
    });
    assert_eq!(reflex.terminate(), Some(0));
}

/// Sends requests over HTTP/2 without TLS, all at once; returns their statuses.
fn at_once(address: &str, requests: Vec<Request<Full<Bytes>>>) -> Vec<u16> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http::<Full<Bytes>>();
        let first = Request::get(format!("http://{address}/healthz"));
        let first = client.request(first.body(Full::default()).unwrap());
        assert_eq!(first.await.unwrap().version(), Version::HTTP_2);
        let all = requests.into_iter().map(|request| client.request(request));
        let all = futures_util::future::join_all(all).await;
        let status = |response: Result<Response<Incoming>, _>| response.unwrap().status().as_u16();
        all.into_iter().map(status).collect()
    })
}

#[test]
fn http_2_without_tls_is_understood_and_requests_share_a_connection() {
    let redis = Redis::start();
    let settings = [("OCTOLLM_REFLEX_MAX_CONNECTIONS", "2")];
    let reflex = Reflex::ready(&redis, &settings);
    let address = reflex.address();
    let submission = || {
        Request::post(format!("http://{address}/v1/tasks"))
            .header("content-type", "application/json")
            .body(Full::from(r#"{"goal": "x"}"#))
            .unwrap()
    };
    let statuses = at_once(address, (0..100).map(|_| submission()).collect());
    assert_eq!(statuses, [202; 100]);
    assert_eq!(redis.length("{l0}:tasks:normal"), 100);
    let foreign = Request::get(format!("http://{address}/v1/tasks"))
        .header("origin", "http://evil.test")
        .body(Full::default())
        .unwrap();
    assert_eq!(at_once(address, vec![foreign]), [403]);
    let prior = "--http2-prior-knowledge --write-out \\n%{http_version}_%{http_code} --header Host:evil.test";
    let answer = text(&curl(prior, &format!("http://{address}/v1/tasks")));
    assert!(
        answer.contains("foreign_host") && answer.ends_with("2_403"),
        "{answer}"
    );
    assert!(!answer.to_lowercase().contains("keep-alive"));
}

#[test]
fn certificates_that_cannot_be_used_prevent_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let [_, file, key] = certificate(folder.path(), "own");
    let [_, _, other_key] = certificate(folder.path(), "other");
    for (certificate, key, named) in [
        (file.as_str(), "", "tls_key_file"),
        ("", key.as_str(), "tls_certificate_file"),
        ("/nowhere/a.crt", &key, "/nowhere/a.crt"),
        (&key, &key, "has no certificate in PEM"),
        (&file, &file, "has no private key in PEM"),
        (&file, &other_key, "its own private key"),
    ] {
        let settings = [
            ("OCTOLLM_REFLEX_TLS_CERTIFICATE_FILE", certificate),
            ("OCTOLLM_REFLEX_TLS_KEY_FILE", key),
        ];
        let checked = common::run(&["--check-config"], &settings);
        let faults = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.code(), Some(1), "{faults}");
        assert!(faults.contains(named), "{named}: {faults}");
        assert_eq!(common::run(&[], &settings).status.code(), Some(2));
    }
}
