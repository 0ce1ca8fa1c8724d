//! GitHub as a sender of webhooks.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a broken setup ends the test

use std::fmt::Write;

use hmac::{Hmac, Mac};
use serde_json::{json, Value};
use sha2::Sha256;

use crate::common::{Answer, Reflex};

pub const TASKS: &str = "{l0}:tasks:normal";
pub const SECRET: &str = "It's a Secret to Everybody";
pub const SECRETS: [(&str, &str); 1] = [("GITHUB_WEBHOOK_SECRET", SECRET)];

pub fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

pub fn github_signature(secret: &str, body: &[u8]) -> String {
    let mut hex = String::new();
    for byte in mac(secret.as_bytes(), &[body]) {
        write!(hex, "{byte:02x}").unwrap();
    }
    format!("x-hub-signature-256: sha256={hex}\r\n")
}

pub fn issue() -> Value {
    json!({
        "action": "opened",
        "issue": {
            "number": 7, "title": "It crashes", "body": "write to ada@example.org", "user": {"login": "lovelace"},
            "html_url": "https://github.com/a/b/issues/7",
        },
        "repository": {"full_name": "a/b"},
    })
}

pub const JSON: &str = "content-type: application/json\r\n";

pub fn deliver(reflex: &Reflex, body: &[u8], event: &str, id: &str, signature: &str) -> Answer {
    let headers =
        format!("{JSON}x-github-event: {event}\r\nx-github-delivery: {id}\r\n{signature}");
    reflex.request("POST", "/v1/webhooks/github", &headers, body)
}

pub fn signed(reflex: &Reflex, body: &[u8], event: &str, id: &str) -> Answer {
    deliver(reflex, body, event, id, &github_signature(SECRET, body))
}
