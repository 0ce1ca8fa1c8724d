//! Tokens (JWT): whose are accepted, and what attackers try.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

#[path = "../../tests/certificates.rs"]
mod certificates;
mod common;
#[path = "common/issuers.rs"]
mod issuers;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use common::events::Events;
use common::keys::bearer;
use common::tokens::{credentials_file, publish, SigningKey};
use common::{free_port, until, Redis, Reflex};
use issuers::{submit, Stage, ALICE, BOB};
use jsonwebtoken::{encode, Algorithm, EncodingKey, Header};
use serde_json::{json, Value};

#[test]
fn a_token_submits_as_the_tenant_of_its_claim() {
    let stage = Stage::new();
    for (key, changes) in [
        (&stage.rsa, json!({})),
        (&stage.ed, json!({})),
        (&stage.bobs, json!({"iss": BOB})),
        (&stage.rsa, json!({"aud": ["other", "octollm"]})),
        (&stage.rsa, json!({"scope": ["submit", "email"]})),
        (&stage.rsa, json!({"exp": 4_102_444_800.5})),
        (&stage.rsa, json!({"nbf": stage.now_s() + 1})),
        (&stage.rsa, json!({"exp": stage.now_s() - 1})),
    ] {
        let answer = stage.submit(&key.sign(&stage.claims(&changes)));
        assert_eq!(answer.status, 202, "{changes}: {answer:?}");
        assert_eq!(answer.json()["tenant"], "acme");
    }
    for scope in [json!("read openid"), Value::Null, json!(7)] {
        let token = stage.rsa.sign(&stage.claims(&json!({ "scope": scope })));
        let answer = stage.submit(&token);
        assert_eq!(
            (answer.status, answer.problem().0.as_str()),
            (403, "insufficient_scope")
        );
    }
    let in_key_header = format!(
        "x-api-key: {}\r\n",
        stage.rsa.sign(&stage.claims(&json!({})))
    );
    assert_eq!(stage.reflex.post(b"{}", &in_key_header).status, 401);
}

/// Encodes a part of a token.
fn part(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

/// A token of these parts, signed by the key.
fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key.private, key.algorithm);
    format!("{message}.{}", signature.unwrap())
}

#[test]
#[allow(clippy::too_many_lines)] // one entry for each attack
fn a_token_that_was_tampered_with_is_refused_like_any_other() {
    let mut stage = Stage::new();
    let good = stage.claims(&json!({}));
    let text = good.to_string();
    let token = stage.rsa.sign(&good);
    let of = |changes: Value| stage.rsa.sign(&stage.claims(&changes));
    let with_header = |key: &SigningKey, change: &dyn Fn(&mut Header)| {
        let mut header = stage.rsa.header();
        change(&mut header);
        encode(&header, &good, &key.private).unwrap()
    };
    let parts: Vec<&str> = token.split('.').collect();
    let modulus = stage.rsa.public["n"].as_str().unwrap().to_owned();
    let document = std::fs::read(stage.folder.path().join("alice.json")).unwrap();
    let symmetric = |secret: &[u8]| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("rsa".to_owned());
        encode(&header, &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let strange = SigningKey::new(stage.folder.path(), "strange", Algorithm::RS256);
    let doubled = text.replacen("{\"", "{\"org\":\"other\",\"", 1);
    let attacks = [
        (
            "alg none",
            format!("{}.{}.", part(r#"{"alg":"none"}"#), parts[1]),
        ),
        (
            "alg none with a signature",
            format!(
                "{}.{}.{}",
                part(r#"{"alg":"None","kid":"rsa"}"#),
                parts[1],
                parts[2]
            ),
        ),
        ("HS256 with the modulus", symmetric(modulus.as_bytes())),
        (
            "HS256 with the raw modulus",
            symmetric(&URL_SAFE_NO_PAD.decode(&modulus).unwrap()),
        ),
        ("HS256 with the public document", symmetric(&document)),
        (
            "another algorithm of the same key",
            with_header(&stage.rsa, &|header| header.alg = Algorithm::RS384),
        ),
        (
            "PSS where PKCS#1 is pinned",
            with_header(&stage.rsa, &|header| header.alg = Algorithm::PS256),
        ),
        (
            "another key under a known id",
            with_header(&strange, &|_| ()),
        ),
        (
            "a key of another type under a known id",
            signed(&stage.ed, r#"{"alg":"EdDSA","kid":"rsa"}"#, &text),
        ),
        (
            "a key in the header",
            with_header(&strange, &|header| {
                header.jwk = serde_json::from_value(strange.public.clone()).ok();
            }),
        ),
        (
            "an unknown id",
            with_header(&strange, &|header| header.kid = Some("strange".to_owned())),
        ),
        ("another issuer's key", stage.bobs.sign(&good)),
        ("another issuer's name", of(json!({"iss": BOB}))),
        (
            "an unknown issuer",
            of(json!({"iss": "https://eve.example"})),
        ),
        ("no issuer", of(json!({"iss": null}))),
        ("another audience", of(json!({"aud": "other"}))),
        ("other audiences", of(json!({"aud": ["other", 7]}))),
        ("no audience", of(json!({"aud": null}))),
        ("not valid yet", of(json!({"nbf": stage.now_s() + 60}))),
        ("a begin that is no time", of(json!({"nbf": "0"}))),
        ("no expiry", of(json!({"exp": null}))),
        (
            "an expiry that is no time",
            of(json!({"exp": "9999999999"})),
        ),
        ("an expiry beyond all times", of(json!({"exp": 1e300}))),
        ("no tenant", of(json!({"org": null}))),
        ("an invalid tenant", of(json!({"org": "Acme Inc."}))),
        ("a tenant that is a number", of(json!({"org": 7}))),
        (
            "a claim that stands twice",
            signed(&stage.rsa, r#"{"alg":"RS256","kid":"rsa"}"#, &doubled),
        ),
        (
            "an extension that must be understood",
            signed(
                &stage.rsa,
                r#"{"alg":"RS256","kid":"rsa","crit":["b64"]}"#,
                &text,
            ),
        ),
        (
            "altered claims",
            format!(
                "{}.{}.{}",
                parts[0],
                part(&text.replace("acme", "evil")),
                parts[2]
            ),
        ),
        (
            "an altered signature",
            format!("{}.{}.{}A", parts[0], parts[1], &parts[2][1..]),
        ),
        ("cut off", token[..token.len() - 1].to_owned()),
        ("without a signature", format!("{}.{}.", parts[0], parts[1])),
        (
            "without its last part",
            format!("{}.{}", parts[0], parts[1]),
        ),
        ("with a surplus part", format!("{token}.{}", parts[2])),
        (
            "with padding",
            format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        ),
        ("huge", of(json!({"sub": "x".repeat(9000)}))),
        ("only dots", "..".to_owned()),
    ];
    let expected = stage.submit("x").without_id();
    for (name, attack) in &attacks {
        let answer = stage.submit(attack);
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        assert_eq!(answer.without_id(), expected, "{name}");
        assert!(
            answer.head.contains("www-authenticate: bearer"),
            "{answer:?}"
        );
    }
    let expired = stage.submit(&of(json!({"exp": stage.now_s() - 60})));
    assert_eq!(
        (expired.status, expired.problem().0.as_str()),
        (401, "expired_credential")
    );
    assert_eq!(
        stage.submit(&token).status,
        202,
        "the right one still works"
    );
    assert_eq!(stage.redis.length("{l0}:tasks:normal"), 1);
    stage.reflex.request_stop();
    stage.reflex.exit_code();
    let log = stage.reflex.log().join("\n");
    assert!(log.contains(ALICE), "the log names the issuer");
    assert!(!log.contains(parts[2]) && !log.contains(parts[1]));
}

#[test]
fn an_event_stream_ends_when_its_token_expires() {
    let stage = Stage::new();
    let task = stage
        .submit(&stage.rsa.sign(&stage.claims(&json!({}))))
        .json()["task"]
        .clone();
    let path = format!("/v1/tasks/{}/events", task.as_str().unwrap());
    // The leeway is twenty seconds.
    let ends = stage.now_s() + 3;
    let token = stage.ed.sign(&stage.claims(&json!({"exp": ends - 20})));
    let mut stream = Events::open(&stage.reflex, &path, &bearer(&token));
    assert_eq!(stream.status, 200);
    assert_eq!(stream.next_with_id(), None);
    assert!((ends..=ends + 2).contains(&stage.now_s()));
}

#[test]
fn keys_are_read_again_when_a_token_names_a_new_one() {
    let stage = Stage::new();
    let claims = stage.claims(&json!({}));
    let old = stage.rsa.sign(&claims);
    assert_eq!(stage.submit(&old).status, 202);
    let next = SigningKey::new(stage.folder.path(), "next", Algorithm::EdDSA);
    publish(&stage.folder.path().join("alice.json"), &[&next, &stage.ed]);
    let new = next.sign(&claims);
    until("the new key is known", || {
        (stage.submit(&new).status == 202).then_some(())
    });
    assert_eq!(stage.submit(&old).status, 401, "its key was withdrawn");
    // A document that cannot be read does not replace the last one.
    std::fs::write(stage.folder.path().join("alice.json"), "{").unwrap();
    let later = SigningKey::new(stage.folder.path(), "later", Algorithm::EdDSA);
    let unknown = later.sign(&claims);
    let answer = until("the keys were read again", || {
        let answer = stage.submit(&unknown);
        (answer.status != 401).then_some(answer)
    });
    assert_eq!(
        (answer.status, answer.problem().0.as_str()),
        (503, "credentials_unavailable")
    );
    assert_eq!(stage.submit(&new).status, 202);
}

/// A web server with TLS that serves a folder.
struct WebServer(Child);

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn keys_are_read_over_https_from_a_server_that_the_system_trusts() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, port) = (certificates::authority(folder.path(), "ca"), free_port());
    certificates::serve_tls(&ca, port);
    let key = SigningKey::new(folder.path(), "key", Algorithm::ES256);
    publish(&folder.path().join("jwks.json"), &[&key]);
    let server = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-WWW",
            "-cert",
            "server.crt",
            "-key",
            "server.key",
            "-accept",
        ])
        .arg(port.to_string())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = WebServer(server);
    until("the server listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let jwks = format!("https://127.0.0.1:{port}/jwks.json");
    let file: PathBuf = credentials_file(folder.path(), &[(BOB, "ES256", &jwks)]);
    let redis = Redis::start();
    redis.publish_keys(&[]);
    let now: (u64, u64) = redis.ask("TIME");
    let token = key.sign(
        &json!({"iss": BOB, "aud": "octollm", "exp": now.0 + 600, "org": "bob", "scope": "submit"}),
    );
    let settings = [
        ("OCTOLLM_REFLEX_CREDENTIALS_FILE", file.to_str().unwrap()),
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
    ];
    let reflex = Reflex::ready(&redis, &settings);
    let answer = until("the keys are known", || {
        let answer = submit(&reflex, &token);
        (answer.status != 503).then_some(answer)
    });
    assert_eq!(
        (answer.status, answer.json()["tenant"].as_str()),
        (202, Some("bob"))
    );
    // Without the authority the same server is not believed, and nobody can say whether the token is valid.
    let reflex = Reflex::ready(&redis, &settings[..1]);
    let answer = submit(&reflex, &token);
    assert_eq!(
        (answer.status, answer.problem().0.as_str()),
        (503, "credentials_unavailable")
    );
}

#[test]
fn a_wrong_file_of_issuers_prevents_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = credentials_file(folder.path(), &[(BOB, "HS256", "https://bob.example/jwks")]);
    let file = file.to_str().unwrap();
    let ended = common::run(&[], &[("OCTOLLM_REFLEX_CREDENTIALS_FILE", file)]);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{error}");
    assert!(
        error.contains(file) && error.contains("issuers[0].algorithms[0]"),
        "{error}"
    );
    let ended = common::run(&[], &[("OCTOLLM_REFLEX_CREDENTIALS_FILE", "/nowhere.yaml")]);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert!(error.contains("OCTOLLM_REFLEX_CREDENTIALS_FILE"), "{error}");
}
