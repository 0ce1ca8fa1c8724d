//! API keys as Python publishes them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{json, Value};

use super::Redis;

/// An API key and what is published about it.
#[derive(Clone)]
pub struct Key {
    pub text: String,
    pub id: String,
    pub record: Value,
}

impl Key {
    /// A key that does not expire. `name` is at most 12 letters, and makes the key unique.
    pub fn new(name: &str, tenant: &str, scopes: &[&str]) -> Self {
        let id = format!("{name:a<12}");
        let text = format!("octo_{id}_{}", format!("{name}2").repeat(52).split_at(52).0);
        let hash = contracts::ids::sha256_hex(text.as_bytes());
        let record =
            json!({"tenant": tenant, "hash": hash, "scopes": scopes, "expires_at_ms": null});
        Self { text, id, record }
    }

    /// The key, but only valid until `at_ms`.
    pub fn until(mut self, at_ms: u64) -> Self {
        self.record["expires_at_ms"] = at_ms.into();
        self
    }

    /// The header of a request with this key.
    pub fn header(&self) -> String {
        bearer(&self.text)
    }

    /// The same id with another secret.
    pub fn with_wrong_secret(&self) -> String {
        let changed = if self.text.ends_with('7') { '6' } else { '7' };
        format!("{}{changed}", &self.text[..self.text.len() - 1])
    }
}

pub fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

const PUBLISH: &str = "#!lua flags=allow-oom
redis.call('DEL', KEYS[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[2], ARGV[1])";

static VERSIONS: AtomicU64 = AtomicU64::new(0);

impl Redis {
    /// Publishes these keys and no others.
    pub fn publish_keys(&self, keys: &[&Key]) {
        let records: Vec<(String, String)> = keys
            .iter()
            .map(|key| (key.id.clone(), key.record.to_string()))
            .collect();
        self.publish_records(&records);
    }

    /// Publishes records as they are, all at once and also when Redis is full.
    pub fn publish_records(&self, records: &[(String, String)]) {
        let version = VERSIONS.fetch_add(1, Ordering::Relaxed).to_string();
        let mut words = vec![PUBLISH, "2", "{api-keys}", "{api-keys}:version", &version];
        for (id, record) in records {
            words.extend([id.as_str(), record.as_str()]);
        }
        let words = ["EVAL"].into_iter().chain(words).map(str::as_bytes);
        let () = self.ask_raw(&words.collect::<Vec<_>>());
    }
}
