//! Leases: renewed in the background while their entries are worked on, and revoked when Redis says so.
//!
//! A lease is not renewed beyond its work's own time limit, so that the entry of a worker that hangs is reclaimed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, RedisResult, Value};
use tokio::sync::watch;

use crate::call::ScriptCall;
use crate::client::RedisClient;
use crate::entry::{Entry, StepRun};
use crate::error::StoreError;
use crate::script::Script;

/// What a script says about a delivered entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// The entry was finished by this call.
    Done,
    /// This consumer holds the entry.
    Valid,
    /// Its run has ended: `complete` has removed the entry, `renew` does not renew it.
    RunEnded,
    /// The entry was given back.
    Released,
    /// Another consumer holds it, or this one got it again: the lease was lost.
    Stale,
    /// It is no longer pending.
    Gone,
}

impl FromRedisValue for LeaseState {
    fn from_redis_value(value: &Value) -> RedisResult<Self> {
        Ok(match String::from_redis_value(value)?.as_str() {
            "done" => Self::Done,
            "valid" => Self::Valid,
            "run_ended" => Self::RunEnded,
            "released" => Self::Released,
            "stale" => Self::Stale,
            _ => Self::Gone,
        })
    }
}

/// Stream, entry id and delivery: an entry that was lost and comes back has another lease.
type Key = (String, String, u64);
/// A lease and the run that its work belongs to.
type Renewed = (Key, Option<StepRun>);

#[derive(Debug)]
struct Record {
    renew_until: Option<Instant>,
    revoked: watch::Sender<bool>,
    lost: Option<LeaseState>,
    run: Option<StepRun>,
}

impl Record {
    fn revoke(&mut self, state: LeaseState) {
        self.lost = Some(state);
        self.revoked.send_replace(true);
    }
}

/// All leases of one consumer.
#[derive(Debug)]
pub struct Leases {
    client: RedisClient,
    group: String,
    consumer: String,
    records: Mutex<HashMap<Key, Record>>,
}

/// One lease; given up when dropped.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Leases>,
    key: Key,
    /// Turns true when the lease is lost, the run has ended or the process stops: stop working.
    pub revoked: watch::Receiver<bool>,
}

impl Lease {
    /// What became of the entry, where this lease was lost.
    #[must_use]
    pub fn lost(&self) -> Option<LeaseState> {
        let records = self.leases.lock();
        records.get(&self.key).and_then(|record| record.lost)
    }

    /// Count the time limit from now: the work begins.
    pub fn restart_limit(&self, limit: Duration) {
        if let Some(record) = self.leases.lock().get_mut(&self.key) {
            record.renew_until = Instant::now().checked_add(limit);
        }
    }

    /// Wait until the lease is revoked.
    pub async fn until_revoked(&self) {
        let mut revoked = self.revoked.clone();
        if revoked.wait_for(|revoked| *revoked).await.is_err() {
            // Not possible: the record lives as long as this lease.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.key);
    }
}

impl Leases {
    #[must_use]
    pub fn new(client: RedisClient, group: &str, consumer: &str) -> Arc<Self> {
        Arc::new(Self {
            client,
            group: group.to_owned(),
            consumer: consumer.to_owned(),
            records: Mutex::default(),
        })
    }

    /// A panic elsewhere cannot leave the map half written.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renew the entry's lease from now on.
    ///
    /// `limit`: for how long at most; `None` for as long as the lease is held. `run`: stop when it has ended. An
    /// earlier lease of the same entry is revoked: the entry has been delivered again.
    #[must_use]
    pub fn hold(
        self: &Arc<Self>,
        entry: &Entry,
        run: Option<StepRun>,
        limit: Option<Duration>,
    ) -> Lease {
        let (revoked, receiver) = watch::channel(false);
        let key = key(entry);
        let record = Record {
            renew_until: limit.and_then(|limit| Instant::now().checked_add(limit)),
            revoked,
            lost: None,
            run,
        };
        let mut records = self.lock();
        // Before its first delivery an entry has no lease.
        if entry.delivery > 1 {
            for (known, earlier) in records.iter_mut() {
                if (&known.0, &known.1) == (&key.0, &key.1) && known.2 != key.2 {
                    earlier.revoke(LeaseState::Stale);
                }
            }
        }
        records.insert(key.clone(), record);
        drop(records);
        Lease {
            leases: self.clone(),
            key,
            revoked: receiver,
        }
    }

    #[must_use]
    pub fn holds(&self, entry: &Entry) -> bool {
        self.lock().contains_key(&key(entry))
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tell all work to stop.
    pub fn revoke_all(&self) {
        for record in self.lock().values() {
            record.revoked.send_replace(true);
        }
    }

    /// The entries of a stream that are held, without their fields.
    #[must_use]
    pub fn held_on(&self, stream: &str) -> Vec<Entry> {
        let records = self.lock();
        let held = records.keys().filter(|key| key.0 == stream);
        held.map(|(stream, id, delivery)| Entry::new(stream, id.clone(), *delivery, Vec::new()))
            .collect()
    }

    /// Tell the work on a stream's entries to stop.
    pub fn revoke_on(&self, stream: &str) {
        for (key, record) in self.lock().iter() {
            if key.0 == stream {
                record.revoked.send_replace(true);
            }
        }
    }

    /// Renew all leases every `heartbeat`. Runs as long as the process.
    pub async fn run(self: Arc<Self>, heartbeat: Duration) {
        let mut beat = tokio::time::interval(heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let now = Instant::now();
            self.renew_where(|record| record.renew_until.is_none_or(|until| until > now))
                .await;
        }
    }

    /// Check at once the steps of a run (`<task>.<run>`) that is reported as ended; revoke their leases if it is.
    pub async fn check_ended(&self, run: &str) {
        self.renew_where(|record| {
            let known = record.run.as_ref();
            known.is_some_and(|known| known.run == run)
        })
        .await;
    }

    async fn renew_where(&self, due: impl Fn(&Record) -> bool) {
        let mut slots: HashMap<String, Vec<Renewed>> = HashMap::new();
        for (key, record) in self.lock().iter() {
            if record.lost.is_none() && due(record) {
                // One script call touches one slot of a cluster.
                let slot = slot(&key.0).to_owned();
                let renewed = (key.clone(), record.run.clone());
                slots.entry(slot).or_default().push(renewed);
            }
        }
        for held in slots.values() {
            self.renew(held).await;
        }
    }

    /// Renew leases of one slot. If Redis refuses the call, each lease is renewed alone, so that one cannot cost others.
    async fn renew(&self, held: &[Renewed]) {
        match self.renew_once(held).await {
            Ok(()) => {}
            Err(StoreError::Refused(_)) if held.len() > 1 => {
                for one in held {
                    if let Err(error) = self.renew_once(std::slice::from_ref(one)).await {
                        report(one, &error);
                    }
                }
            }
            Err(error) => held.iter().take(1).for_each(|one| report(one, &error)),
        }
    }

    async fn renew_once(&self, held: &[Renewed]) -> Result<(), StoreError> {
        let mut call = ScriptCall::new(Script::Renew);
        let entries = held
            .iter()
            .map(|((stream, id, delivery), _)| (stream.as_str(), id.as_str(), *delivery));
        name_entries(&mut call, &self.group, &self.consumer, entries);
        for (number, (_, run)) in held.iter().enumerate() {
            if let Some(run) = run {
                call.arg(number + 1)
                    .key_index(&run.ended_runs)
                    .arg(&run.run)
                    .arg(&run.tenant);
            }
        }
        let states: Vec<LeaseState> = self.client.call(&call).await?;
        let mut records = self.lock();
        for ((key, _), state) in held.iter().zip(states) {
            let (Some(record), true) = (records.get_mut(key), state != LeaseState::Valid) else {
                continue;
            };
            if state == LeaseState::RunEnded {
                tracing::info!(entry = %key.1, "a run has ended; its step is stopped");
            } else {
                tracing::warn!(entry = %key.1, ?state, "lost the lease of an entry; its work is stopped");
            }
            record.revoke(state);
        }
        Ok(())
    }
}

fn report(held: &Renewed, error: &StoreError) {
    if error.is_transient() {
        tracing::warn!(%error, "leases could not be renewed; trying again");
    } else {
        tracing::error!(entry = %held.0.1, %error, "Redis refuses to renew the lease of an entry; it ends");
    }
}

fn key(entry: &Entry) -> Key {
    (entry.stream.clone(), entry.id.clone(), entry.delivery)
}

/// What decides the slot of a key in a cluster: its hash tag, or the whole key where it has none.
fn slot(key: &str) -> &str {
    let tag = key
        .strip_prefix('{')
        .and_then(|rest| rest.split_once('}'))
        .map(|(tag, _)| tag);
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// KEYS and ARGV of `renew` and `release`: the consumer, then stream, entry id and delivery of each entry.
pub(crate) fn name_entries<'a>(
    call: &mut ScriptCall,
    group: &str,
    consumer: &str,
    entries: impl ExactSizeIterator<Item = (&'a str, &'a str, u64)>,
) {
    call.arg(group).arg(consumer).arg(entries.len());
    for (stream, id, delivery) in entries {
        call.key_index(stream).arg(id).arg(delivery);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::{slot, Entry, LeaseState, Leases};
    use crate::client::RedisClient;

    fn leases() -> Arc<Leases> {
        let settings = contracts::settings::load_from(&BTreeMap::new()).unwrap();
        let (client, _) = RedisClient::open(&settings.redis).unwrap();
        Leases::new(client, "group", "me")
    }

    fn entry(delivery: u64) -> Entry {
        Entry::new("ingest:a", "1-0".to_owned(), delivery, Vec::new())
    }

    #[test]
    fn a_lease_is_held_until_it_is_dropped() {
        let leases = leases();
        let lease = leases.hold(&entry(1), None, None);
        assert!(leases.holds(&entry(1)) && !leases.holds(&entry(2)));
        assert_eq!((leases.count(), lease.lost()), (1, None));
        drop(lease);
        assert_eq!(leases.count(), 0);
    }

    #[test]
    fn a_new_delivery_revokes_the_lease_of_the_earlier_one() {
        let leases = leases();
        let first = leases.hold(&entry(1), None, None);
        let second = leases.hold(&entry(2), None, None);
        assert!(*first.revoked.borrow() && !*second.revoked.borrow());
        assert_eq!(
            (first.lost(), second.lost()),
            (Some(LeaseState::Stale), None)
        );
    }

    #[test]
    fn a_hash_tag_decides_the_slot() {
        assert_eq!(slot("{l0}:steps.done"), "l0");
        assert_eq!(slot("ingest:a"), "ingest:a");
        assert_eq!(slot("{}x"), "{}x");
    }
}
