//! What is published about one API key: a field of the hash `{api-keys}`.

use std::sync::atomic::{AtomicU64, Ordering};

use contracts::events::{Sha256, Tenant};
use serde::Deserialize;

use crate::caller::{Caller, Credential, KeyId, Scopes};

/// The JSON of a field. Keys that this version does not know are ignored: a newer Python may publish more.
#[derive(Deserialize)]
struct Published {
    tenant: Tenant,
    hash: Sha256,
    scopes: Vec<String>,
    expires_at_ms: Option<u64>,
}

/// A valid key.
#[derive(Debug)]
pub struct KeyRecord {
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// Who presents the key.
    pub caller: Caller,
    /// In ms since 1970 by Redis' clock.
    pub expires_at_ms: Option<u64>,
    used_at_ms: AtomicU64,
}

impl KeyRecord {
    /// Reads a field of the hash; fails with what is wrong with it, without quoting it.
    pub fn parse(id: &[u8], json: &[u8]) -> Result<(KeyId, Self), String> {
        let id = KeyId::parse(id).ok_or("its name is not the id of a key")?;
        // serde's messages quote values, and only the place is of use.
        let published: Published = serde_json::from_slice(json)
            .map_err(|error| format!("it is not a record of a key (column {})", error.column()))?;
        let scopes: Result<Scopes, _> = published.scopes.iter().map(|name| name.parse()).collect();
        let mut hash = [0; 32];
        hex::decode_to_slice(published.hash.as_str(), &mut hash)
            .map_err(|_| "its hash is not hexadecimal")?;
        let caller = Caller {
            tenant: published.tenant,
            scopes: scopes.map_err(|_| "it has an unknown scope")?,
            credential: Credential::Key(id),
        };
        let record = Self {
            hash,
            caller,
            expires_at_ms: published.expires_at_ms,
            used_at_ms: AtomicU64::new(0),
        };
        Ok((id, record))
    }

    #[must_use]
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|expiry| now_ms >= expiry)
    }

    /// Notes that the key is used now.
    pub fn touch(&self, now_ms: u64) {
        self.used_at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When the key was last used with this process; 0 if never.
    #[must_use]
    pub fn used_at_ms(&self) -> u64 {
        self.used_at_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::KeyRecord;

    const ID: &[u8] = b"abcdefgh2345";

    fn published(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
        let mut record = serde_json::json!({
            "tenant": "acme", "hash": "ab".repeat(32), "scopes": ["submit", "read"], "expires_at_ms": 1_790_000_000_000_u64,
        });
        change(&mut record);
        record.to_string().into_bytes()
    }

    #[test]
    fn a_record_says_whose_key_it_is_and_until_when() {
        let (id, record) = KeyRecord::parse(ID, &published(|_| ())).unwrap();
        assert_eq!(id.as_str().as_bytes(), ID);
        assert_eq!(record.hash, [0xab; 32]);
        assert_eq!(record.caller.tenant.as_str(), "acme");
        assert_eq!(record.caller.scopes.to_string(), "read,submit");
        assert!(!record.has_expired(1_789_999_999_999) && record.has_expired(1_790_000_000_000));
        let (_, lasting) = KeyRecord::parse(
            ID,
            &published(|one| one["expires_at_ms"] = serde_json::Value::Null),
        )
        .unwrap();
        assert!(!lasting.has_expired(u64::MAX));
    }

    #[test]
    fn a_broken_record_is_refused_and_not_quoted() {
        let wrong: [(&str, serde_json::Value); 6] = [
            ("tenant", "Canary".into()),
            ("hash", "canary".into()),
            ("scopes", serde_json::json!(["canary"])),
            ("scopes", "canary".into()),
            ("expires_at_ms", "canary".into()),
            ("expires_at_ms", (-1).into()),
        ];
        for (field, value) in wrong {
            let broken = published(|record| record[field] = value.clone());
            let error = KeyRecord::parse(ID, &broken).unwrap_err();
            assert!(!error.to_lowercase().contains("canary"), "{error}");
        }
        assert!(KeyRecord::parse(ID, b"canary").is_err());
        assert!(KeyRecord::parse(b"ABCDEFGH2345", &published(|_| ())).is_err());
        assert!(KeyRecord::parse(ID, &published(|record| record["later"] = true.into())).is_ok());
    }
}
