//! The valid API keys, in memory. A table is replaced as a whole and never changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq;

use super::{ApiKey, KeyRecord, Refusal};
use crate::caller::KeyId;

/// How long the last table counts while Redis cannot say whether it is still the newest one.
const MAX_AGE: Duration = Duration::from_secs(3);

/// The records of all valid keys.
#[derive(Debug, Default)]
pub struct KeyTable(HashMap<KeyId, KeyRecord>);

impl KeyTable {
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.0.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&KeyId, &KeyRecord)> {
        self.0.iter()
    }

    /// Returns the key's record if the whole key is right. Takes the same time for an unknown id and for a wrong secret.
    fn verify(&self, key: &ApiKey) -> Option<&KeyRecord> {
        let record = self.0.get(&key.id);
        let hash = record.map_or([0; 32], |record| record.hash);
        let equal = bool::from(hash.ct_eq(&key.hash));
        record.filter(|_| equal)
    }
}

impl FromIterator<(KeyId, KeyRecord)> for KeyTable {
    fn from_iter<I: IntoIterator<Item = (KeyId, KeyRecord)>>(records: I) -> Self {
        Self(records.into_iter().collect())
    }
}

/// What is known about the keys.
#[derive(Debug)]
struct Known {
    /// `None`: no keys are published.
    table: Option<Arc<KeyTable>>,
    /// When Redis last said that this is the newest state; `None`: never.
    read_at: Option<Instant>,
}

impl Known {
    /// Returns the keys that count at `now`.
    fn table(&self, now: Instant) -> Result<&KeyTable, Refusal> {
        let is_fresh = |at| now.duration_since(at) <= MAX_AGE;
        self.table
            .as_deref()
            .filter(|_| self.read_at.is_some_and(is_fresh))
            .ok_or(Refusal::Unavailable)
    }
}

/// The newest table that was read, shared by all requests and replaced by `Refresh`.
#[derive(Debug)]
pub struct Keys(ArcSwap<Known>);

impl Default for Keys {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(Known {
            table: None,
            read_at: None,
        }))
    }
}

impl Keys {
    /// Sets what Redis has just said: the published table, or that none is published.
    pub fn set(&self, table: Option<Arc<KeyTable>>) {
        self.0.store(Arc::new(Known {
            table,
            read_at: Some(Instant::now()),
        }));
    }

    /// Whether Redis was ever asked successfully.
    #[must_use]
    pub fn were_read(&self) -> bool {
        self.0.load().read_at.is_some()
    }

    /// Calls `use_record` with the record of the key; fails if the key is not valid or nobody can say it now.
    pub(super) fn verify<T>(
        &self,
        key: &ApiKey,
        use_record: impl FnOnce(&KeyRecord) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let known = self.0.load();
        let table = known.table(Instant::now())?;
        use_record(table.verify(key).ok_or(Refusal::Invalid)?)
    }

    /// Calls `use_record` with the record of the id; fails if there is none now.
    pub(super) fn find<T>(
        &self,
        id: &KeyId,
        use_record: impl FnOnce(&KeyRecord) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let known = self.0.load();
        let table = known.table(Instant::now())?;
        use_record(table.get(id).ok_or(Refusal::Invalid)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::{ApiKey, KeyRecord, KeyTable, Keys, Known, Refusal, MAX_AGE};

    fn key(id: char, secret: char) -> ApiKey {
        let text = format!(
            "octo_{}_{}",
            id.to_string().repeat(12),
            secret.to_string().repeat(52)
        );
        ApiKey::parse(&text).unwrap()
    }

    fn table(keys: &[ApiKey]) -> Arc<KeyTable> {
        let records = keys.iter().map(|key| {
            let json = json!({"tenant": "acme", "hash": hex::encode(key.hash), "scopes": ["read"], "expires_at_ms": null});
            KeyRecord::parse(key.id.as_str().as_bytes(), json.to_string().as_bytes()).unwrap()
        });
        Arc::new(records.collect())
    }

    fn verify(keys: &Keys, key: &ApiKey) -> Result<(), Refusal> {
        keys.verify(key, |_| Ok(()))
    }

    #[test]
    fn only_the_whole_key_is_valid() {
        let (known, keys) = (key('a', 'b'), Keys::default());
        keys.set(Some(table(&[known])));
        assert_eq!(verify(&keys, &known), Ok(()));
        assert_eq!(verify(&keys, &key('a', 'c')), Err(Refusal::Invalid));
        assert_eq!(verify(&keys, &key('b', 'b')), Err(Refusal::Invalid));
        keys.set(Some(table(&[])));
        assert_eq!(verify(&keys, &known), Err(Refusal::Invalid));
        assert_eq!(keys.find(&known.id, |_| Ok(())), Err(Refusal::Invalid));
    }

    #[test]
    fn a_table_that_cannot_be_confirmed_counts_for_three_seconds() {
        let read_at = Instant::now();
        let refused = |table, read_at, now| Known { table, read_at }.table(now).err();
        let known = Some(table(&[key('a', 'b')]));
        let later = read_at + MAX_AGE;
        assert_eq!(refused(known.clone(), Some(read_at), later), None);
        let unavailable = Some(Refusal::Unavailable);
        let too_late = later + Duration::from_millis(1);
        assert_eq!(refused(known.clone(), Some(read_at), too_late), unavailable);
        assert_eq!(refused(known, None, read_at), unavailable);
        assert_eq!(refused(None, Some(read_at), read_at), unavailable);
    }
}
