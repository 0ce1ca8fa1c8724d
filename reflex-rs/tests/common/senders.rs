//! A sender of webhooks for each signature scheme.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a broken setup ends the test

use std::fmt::Write;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use hmac::{Hmac, Mac};
use serde_json::{json, Value};
use sha2::Sha256;

use crate::common::{Answer, Redis, Reflex};

pub const TASKS: &str = "{l0}:tasks:normal";
pub const KEY: &str = "a key of more than sixteen bytes";
pub const STANDARD_KEY: &[u8] = b"the key of 24 bytes here";
pub const SOURCES: &str = r"version: 1
sources:
  standard:
    description: x
    scheme: standard
    tenant: default
    secrets: [env:STANDARD_SECRET]
    events:
      made: {kind: note, goal: keep it, input: {text: /text}}
";

/// A file with one source of each scheme, and the settings that name it and all secrets.
pub fn sources() -> (tempfile::TempDir, Vec<(&'static str, String)>) {
    let mut file = SOURCES.to_owned();
    for (name, options) in [
        ("github", "scheme: github"),
        ("gitlab", "scheme: gitlab"),
        ("gitlab-signed", "scheme: gitlab"),
        ("stripe", "scheme: stripe\n    tolerance_s: 60"),
        ("slack", "scheme: slack"),
        (
            "own",
            "scheme: hmac\n    hmac: {header: X-Sig, prefix: 'v1=', timestamp_header: X-Time, \
             format: '{timestamp}.{body}'}\n    event: {header: X-Event}",
        ),
        (
            "shared",
            "scheme: shared_secret\n    shared_secret: {header: X-Token}\n    event: {name: made}",
        ),
    ] {
        let secret = match name {
            "gitlab-signed" => "STANDARD_SECRET",
            _ => "PLAIN_SECRET",
        };
        write!(
            file,
            "  {name}:\n    description: x\n    {options}\n    tenant: default\n    secrets: [env:OTHER_SECRET, env:{secret}]\n    \
             events:\n      made: {{kind: note, goal: keep it, input: {{text: /text}}}}\n      \
             /note: {{kind: note, goal: keep it, input: {{text: /text}}}}\n"
        ).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("webhooks.yaml");
    std::fs::write(&path, file).unwrap();
    let secret = format!("whsec_{}", BASE64.encode(STANDARD_KEY));
    let settings = vec![
        ("OCTOLLM_WEBHOOKS_FILE", path.to_str().unwrap().to_owned()),
        // During a rotation the other secret is tried first.
        ("OTHER_SECRET", "another good secret".to_owned()),
        ("PLAIN_SECRET", KEY.to_owned()),
        ("STANDARD_SECRET", secret),
    ];
    (folder, settings)
}

pub fn reflex(redis: &Redis, settings: &[(&'static str, String)]) -> Reflex {
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Reflex::ready(redis, &settings)
}

pub fn mac(key: &[u8], parts: &[&str]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().to_vec()
}

pub fn hex(parts: &[&str]) -> String {
    hex::encode(mac(KEY.as_bytes(), parts))
}

/// The time that is signed now, this many seconds ago.
pub fn stamp(age_s: i64) -> String {
    let now_s = i64::try_from(contracts::ids::now_ms() / 1000).unwrap();
    (now_s - age_s).to_string()
}

pub const JSON: &str = "application/json";
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Sends a delivery of this media type.
pub fn send(reflex: &Reflex, source: &str, media_type: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("content-type: {media_type}\r\n{headers}");
    let path = format!("/v1/webhooks/{source}");
    reflex.request("POST", &path, &headers, body.as_bytes())
}

/// The headers with which the sender of a source signs a body.
pub fn signed(source: &str, body: &str, id: &str, age_s: i64) -> String {
    let time = stamp(age_s);
    match source {
        "standard" | "gitlab-signed" => {
            let signature = BASE64.encode(mac(STANDARD_KEY, &[id, ".", &time, ".", body]));
            format!("webhook-id: {id}\r\nwebhook-timestamp: {time}\r\nwebhook-signature: v1,{signature}\r\n")
        }
        "github" => format!(
            "x-github-event: made\r\nx-github-delivery: {id}\r\nx-hub-signature-256: sha256={}\r\n",
            hex(&[body])
        ),
        "gitlab" => format!("x-gitlab-token: {KEY}\r\nx-gitlab-event-uuid: {id}\r\n"),
        "stripe" => format!(
            "stripe-signature: t={time},v1={},v1={}\r\n",
            "0".repeat(64),
            hex(&[&time, ".", body])
        ),
        "slack" => format!(
            "x-slack-request-timestamp: {time}\r\nx-slack-signature: v0={}\r\n",
            hex(&["v0:", &time, ":", body])
        ),
        "own" => format!(
            "x-event: made\r\nx-time: {time}\r\nx-sig: v1={}\r\n",
            hex(&[&time, ".", body])
        ),
        _ => format!("x-token: {KEY}\r\n"),
    }
}

pub const ALL: [&str; 8] = [
    "standard",
    "github",
    "gitlab",
    "gitlab-signed",
    "stripe",
    "slack",
    "own",
    "shared",
];

/// A payload as the sender of a source writes it; `id` is the event's, where the scheme has it in the payload.
pub fn payload(source: &str, text: &str, id: &str) -> Value {
    match source {
        "gitlab" | "gitlab-signed" => json!({"object_kind": "made", "text": text}),
        "stripe" => json!({"id": id, "type": "made", "text": text}),
        "slack" => {
            json!({"type": "event_callback", "event_id": id, "event": {"type": "made"}, "text": text})
        }
        _ => json!({"type": "made", "text": text}),
    }
}
