//! A worker on a Redis with TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

#[path = "../../tests/certificates.rs"]
mod certificates;
mod common;
#[path = "common/stage.rs"]
mod stage;

use serde_json::json;
use stage::Stage;

/// Let the stage's server listen with TLS, too; return the URL.
fn serve_tls(stage: &Stage, ca: &std::path::Path) -> String {
    let port = stage::free_port();
    let words = certificates::serve_tls(ca, port);
    let mut command = vec!["CONFIG", "SET"];
    command.extend(words.iter().map(String::as_str));
    let () = stage.ask(&command);
    format!("rediss://limited:secret@127.0.0.1:{port}/0")
}

#[test]
fn a_worker_works_over_tls() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = certificates::authority(folder.path(), "ca");
    stage.url_without(&[]);
    let url = serve_tls(&stage, &ca);
    let settings = [
        ("OCTOLLM_REDIS_URL", url.as_str()),
        ("OCTOLLM_REDIS_CA_FILE", ca.to_str().unwrap()),
    ];
    let mut worker = stage.worker(&settings);
    worker.until_ready();
    stage.add(&Stage::message(
        &json!({"language": "shell", "code": "echo done"}),
        0,
    ));
    assert_eq!(stage.done(0).1["outcome"], "succeeded");
    // The control channel has a connection of its own.
    stage.say("a word of a newer version");
    worker.terminate();
    assert_eq!(worker.wait(), Some(0));
}

#[test]
fn a_certificate_of_an_unknown_authority_is_not_accepted() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let url = serve_tls(&stage, &certificates::authority(folder.path(), "ca"));
    let other = certificates::authority(folder.path(), "other");
    for ca in ["", other.to_str().unwrap()] {
        let worker = stage.worker(&[("OCTOLLM_REDIS_URL", &url), ("OCTOLLM_REDIS_CA_FILE", ca)]);
        worker.until_http("/readyz", |code, text| {
            code == 503 && text.contains("invalid peer certificate")
        });
    }
}

#[test]
fn a_file_of_certificates_that_cannot_be_used_is_refused() {
    let stage = Stage::new();
    let empty = tempfile::NamedTempFile::new().unwrap();
    for (url, file, cause) in [
        (
            "rediss://127.0.0.1:1/0",
            "/nowhere/ca.pem",
            "/nowhere/ca.pem cannot be read",
        ),
        (
            "rediss://127.0.0.1:1/0",
            empty.path().to_str().unwrap(),
            "holds no certificate in PEM",
        ),
        (
            "redis://127.0.0.1:1/0",
            "/nowhere/ca.pem",
            "redis.ca_file is refused: must be empty unless",
        ),
    ] {
        let said = stage.refused(&[("OCTOLLM_REDIS_URL", url), ("OCTOLLM_REDIS_CA_FILE", file)]);
        assert!(said.contains(cause), "{said}");
    }
}
