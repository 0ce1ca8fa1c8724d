//! The tenants or the keys that have a quota and were active a moment ago, with their buckets.
//!
//! Sharded, so that requests of different owners do not wait for each other. Idle owners are removed: an idle bucket is full,
//! in Redis too.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use contracts::keys::LaneKeys;
use contracts::quotas::Limits;

use super::bucket::Bucket;
use super::fields;
use super::limit::{Limit, OwnerKind};

const SHARDS: usize = 64;
/// How long an owner is kept without a request.
const IDLE_US: u64 = 10_000_000;

/// One tenant or key with a quota.
#[derive(Debug)]
pub(super) struct Owner {
    pub requests: Option<Arc<Bucket>>,
    pub reads: Option<Arc<Bucket>>,
    pub bytes: Option<Arc<Bucket>>,
    /// Its part of the field `RateLimit-Policy` in answers to submissions and to other requests.
    pub submission_policy: String,
    pub read_policy: String,
    used_at: AtomicU64,
}

impl Owner {
    fn new(keys: &LaneKeys, kind: OwnerKind, name: &str, limits: &Limits) -> Self {
        let id = super::owner_id(kind, name);
        let bucket = |limit: Limit, rate| {
            let key = keys.quota(&id, limit.as_str());
            Arc::new(Bucket::new(limit, kind, key, rate))
        };
        let requests = limits.requests.map(|rate| bucket(Limit::Requests, rate));
        let reads = limits.reads.map(|rate| bucket(Limit::Reads, rate));
        let bytes = limits.bytes.map(|rate| bucket(Limit::Bytes, rate));
        Self {
            submission_policy: fields::policy(requests.iter().chain(&bytes)),
            read_policy: fields::policy(reads.iter()),
            requests,
            reads,
            bytes,
            used_at: AtomicU64::new(0),
        }
    }

    pub fn buckets(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        self.requests.iter().chain(&self.reads).chain(&self.bytes)
    }
}

type Shard = RwLock<HashMap<Box<str>, Arc<Owner>>>;

/// All active owners of one kind.
pub(super) struct Owners {
    kind: OwnerKind,
    keys: LaneKeys,
    hasher: RandomState,
    shards: [Shard; SHARDS],
}

impl Owners {
    pub fn new(kind: OwnerKind, keys: LaneKeys) -> Self {
        Self {
            kind,
            keys,
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }

    /// Returns the owner of this name, which has these limits.
    pub fn get(&self, name: &str, limits: &Limits, now: u64) -> Arc<Owner> {
        let shard = self.shard(name);
        let known = shard
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        let owner = known.unwrap_or_else(|| {
            let mut owners = shard.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Owner::new(&self.keys, self.kind, name, limits));
            Arc::clone(owners.entry(name.into()).or_insert_with(new))
        });
        owner.used_at.store(now, Relaxed);
        owner
    }

    /// Removes idle owners. Calls `expired` for each bucket whose portion may no longer be spent.
    pub fn prune(&self, now: u64, mut expired: impl FnMut(&Arc<Bucket>)) {
        for shard in &self.shards {
            let mut owners = shard.write().unwrap_or_else(PoisonError::into_inner);
            owners.retain(|_, owner| {
                for bucket in owner.buckets().filter(|bucket| bucket.has_expired(now)) {
                    expired(bucket);
                }
                now.saturating_sub(owner.used_at.load(Relaxed)) < IDLE_US
            });
            // A burst of tenants leaves no large table behind.
            if owners.capacity() > 4 * owners.len() + 64 {
                owners.shrink_to_fit();
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let length = |shard: &Shard| shard.read().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(length).sum()
    }

    #[allow(clippy::cast_possible_truncation)] // cut to a shard's index anyway
    fn shard(&self, name: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(name) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use contracts::keys::LaneKeys;
    use contracts::quotas::{Limits, Rate};

    use super::{Owners, IDLE_US};
    use crate::quotas::limit::OwnerKind;

    #[test]
    fn idle_owners_are_removed() {
        let owners = Owners::new(OwnerKind::Tenant, LaneKeys::new("l0"));
        let limits = Limits {
            requests: Some(Rate {
                per_s: 1.0,
                burst: 1,
            }),
            ..Limits::default()
        };
        for number in 0..100_000_u64 {
            owners.get(&format!("tenant-{number}"), &limits, number);
        }
        assert_eq!(owners.len(), 100_000);
        owners.prune(IDLE_US + 99_990, |_| {});
        assert_eq!(owners.len(), 9);
        let capacity: usize = owners
            .shards
            .iter()
            .map(|one| one.read().unwrap().capacity())
            .sum();
        assert!(capacity < 10_000, "{capacity}");
        let bucket = owners.get("a", &limits, 0).requests.clone().unwrap();
        assert_eq!(bucket.key, "{l0}:quota:tenant:a:requests");
    }
}
