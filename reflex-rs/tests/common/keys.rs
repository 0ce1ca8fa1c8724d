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

    /// Publishes records as they are, in one transaction.
    pub fn publish_records(&self, records: &[(String, String)]) {
        let version = VERSIONS.fetch_add(1, Ordering::Relaxed);
        let mut publication = redis::pipe();
        publication.atomic().del("{api-keys}").ignore();
        if !records.is_empty() {
            publication.hset_multiple("{api-keys}", records).ignore();
        }
        publication.set("{api-keys}:version", version).ignore();
        let client = redis::Client::open(self.url()).unwrap();
        let () = publication
            .query(&mut client.get_connection().unwrap())
            .unwrap();
    }
}
