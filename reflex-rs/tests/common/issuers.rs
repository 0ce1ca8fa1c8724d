//! Two issuers of tokens, and a reflex that trusts them.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a broken setup ends the test

use jsonwebtoken::Algorithm;
use serde_json::{json, Value};

use crate::common::keys::bearer;
use crate::common::tokens::{credentials_file, publish, SigningKey};
use crate::common::{Answer, Redis, Reflex};

pub const ALICE: &str = "https://alice.example";
pub const BOB: &str = "https://bob.example";

/// A reflex that trusts Alice (RSA and Ed25519) and Bob (P-256).
pub struct Stage {
    pub folder: tempfile::TempDir,
    pub redis: Redis,
    pub reflex: Reflex,
    pub rsa: SigningKey,
    pub ed: SigningKey,
    pub bobs: SigningKey,
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = |id, algorithm| SigningKey::new(folder.path(), id, algorithm);
        let (rsa, ed) = (key("rsa", Algorithm::RS256), key("ed", Algorithm::EdDSA));
        let bobs = key("bobs", Algorithm::ES256);
        publish(&folder.path().join("alice.json"), &[&rsa, &ed]);
        publish(&folder.path().join("bob.json"), &[&bobs]);
        let at = |name: &str| format!("file:{}", folder.path().join(name).display());
        let issuers = [
            (ALICE, "RS256, EdDSA", &*at("alice.json")),
            (BOB, "ES256", &*at("bob.json")),
        ];
        let file = credentials_file(folder.path(), &issuers);
        let redis = Redis::start();
        redis.publish_keys(&[]);
        let reflex = start(&redis, &file);
        Self {
            folder,
            redis,
            reflex,
            rsa,
            ed,
            bobs,
        }
    }

    pub fn now_s(&self) -> u64 {
        self.redis.ask::<(u64, u64)>("TIME").0
    }

    /// Claims that are accepted, with changes; null removes one.
    pub fn claims(&self, changes: &Value) -> Value {
        let mut claims = json!({
            "iss": ALICE, "aud": "octollm", "exp": self.now_s() + 600, "org": "acme", "sub": "someone",
            "scope": "openid submit read",
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let all = claims.as_object_mut().unwrap();
        all.retain(|_, value| !value.is_null());
        claims
    }

    pub fn submit(&self, token: &str) -> Answer {
        submit(&self.reflex, token)
    }
}

pub fn start(redis: &Redis, credentials: &std::path::Path) -> Reflex {
    let settings = [
        ("OCTOLLM_REFLEX_ANONYMOUS", "off"),
        (
            "OCTOLLM_REFLEX_CREDENTIALS_FILE",
            credentials.to_str().unwrap(),
        ),
        ("OCTOLLM_LOG_LEVEL", "debug"),
    ];
    Reflex::ready(redis, &settings)
}

pub fn submit(reflex: &Reflex, token: &str) -> Answer {
    reflex.post(br#"{"goal": "x"}"#, &bearer(token))
}
