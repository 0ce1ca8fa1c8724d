//! Keeps the table of keys equal to what is published in Redis, and reports when keys were last used.
//!
//! | key | type | content |
//! |---|---|---|
//! | `{api-keys}` | hash | id of each valid key: JSON with `tenant`, `hash`, `scopes`, `expires_at_ms` (or null) |
//! | `{api-keys}:version` | string | changes with every publication, in the same transaction; absent if nothing is published |
//! | `{api-keys}:used` | hash | id: when it was last used, in ms since 1970; written here |

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bus::{RedisClient, StoreError};
use contracts::keys::{API_KEYS, API_KEYS_USED, API_KEYS_VERSION};
use tokio::time::{interval, Instant, MissedTickBehavior};

use super::{KeyRecord, KeyTable, Keys};
use crate::blocking::run_sized;
use crate::caller::KeyId;

/// How often the version is read. A revoked key stops working within this time and two answers of Redis.
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// How often uses are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Keys whose uses are reported in one command.
const REPORT_BATCH: usize = 1000;

type Version = Option<Vec<u8>>;
type Published = HashMap<Vec<u8>, Vec<u8>>;

/// The loop that reads the published keys.
pub struct Refresh {
    redis: RedisClient,
    keys: Arc<Keys>,
    /// What was read last.
    newest: Option<(Vec<u8>, Arc<KeyTable>)>,
    /// The uses that Redis knows.
    reported: HashMap<KeyId, u64>,
    /// Broken records that were logged.
    logged: HashSet<Vec<u8>>,
    /// Why the last read failed.
    failure: Option<String>,
}

impl Refresh {
    #[must_use]
    pub fn new(redis: RedisClient, keys: Arc<Keys>) -> Self {
        Self {
            redis,
            keys,
            newest: None,
            reported: HashMap::new(),
            logged: HashSet::new(),
            failure: None,
        }
    }

    /// Runs as long as the process.
    pub async fn run(mut self) {
        let mut polls = interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_report = Instant::now() + REPORT_INTERVAL;
        loop {
            polls.tick().await;
            let result = self.read().await;
            self.log_change(result.err());
            if Instant::now() >= next_report {
                self.report().await;
                next_report = Instant::now() + REPORT_INTERVAL;
            }
        }
    }

    async fn read(&mut self) -> Result<(), StoreError> {
        let version: Version = self
            .redis
            .query(redis::cmd("GET").arg(API_KEYS_VERSION))
            .await?;
        let known = self.newest.as_ref().map(|(version, _)| version);
        if version.is_some() && version.as_ref() != known {
            self.newest = self.load().await?;
        } else if version.is_none() {
            self.newest = None;
        }
        let table = self.newest.as_ref().map(|(_, table)| Arc::clone(table));
        self.keys.set(table);
        Ok(())
    }

    /// Reads the keys between two reads of their version. A transaction would do, but Redis refuses to queue one when it is full.
    ///
    /// Fails if they were published meanwhile; the next poll reads them again.
    async fn load(&mut self) -> Result<Option<(Vec<u8>, Arc<KeyTable>)>, StoreError> {
        let mut connection = self.redis.connection()?;
        let (version, published, after): (Version, Published, Version) = redis::pipe()
            .get(API_KEYS_VERSION)
            .hgetall(API_KEYS)
            .get(API_KEYS_VERSION)
            .query_async(&mut connection)
            .await?;
        if version != after {
            return Err(StoreError::unavailable("the keys were just published"));
        }
        let Some(version) = version else {
            return Ok(None);
        };
        let bytes = published.values().map(Vec::len).sum();
        let table = run_sized(bytes, || self.parse(&published)).await;
        tracing::debug!(keys = table.iter().count(), "loaded the API keys");
        Ok(Some((version, Arc::new(table))))
    }

    fn parse(&mut self, published: &Published) -> KeyTable {
        let mut records = Vec::with_capacity(published.len());
        for (id, json) in published {
            match KeyRecord::parse(id, json) {
                Ok((id, record)) => {
                    let old = self.newest.as_ref().and_then(|(_, table)| table.get(&id));
                    record.touch(old.map_or(0, KeyRecord::used_at_ms));
                    records.push((id, record));
                }
                Err(reason) if self.logged.insert(id.clone()) => {
                    let key = String::from_utf8_lossy(&id[..id.len().min(KeyId::LENGTH)]);
                    tracing::error!(
                        key = &*key,
                        reason,
                        "refused an API key whose record in {{api-keys}} is broken; revoke it and create another"
                    );
                }
                Err(_) => {}
            }
        }
        records.into_iter().collect()
    }

    /// Writes the uses since the last report. A use that cannot be written is written with the next report.
    async fn report(&mut self) {
        let Some((_, table)) = &self.newest else {
            return;
        };
        self.reported.retain(|id, _| table.get(id).is_some());
        let used: Vec<(KeyId, u64)> = table
            .iter()
            .map(|(id, record)| (*id, record.used_at_ms()))
            .filter(|(id, at)| *at > self.reported.get(id).copied().unwrap_or(0))
            .collect();
        for batch in used.chunks(REPORT_BATCH) {
            let mut command = redis::cmd("HSET");
            command.arg(API_KEYS_USED);
            for (id, at) in batch {
                command.arg(id.as_str()).arg(*at);
            }
            match self.redis.query::<()>(&command).await {
                Ok(()) => self.reported.extend(batch.iter().copied()),
                Err(error) => {
                    tracing::debug!(%error, "could not report when API keys were used");
                    return;
                }
            }
        }
    }

    /// Logs the beginning and the end of a time in which the keys cannot be read.
    fn log_change(&mut self, error: Option<StoreError>) {
        match (&self.failure, error.map(|error| error.to_string())) {
            // The connection reports an outage itself.
            (None, Some(reason)) => {
                tracing::warn!(
                    reason,
                    "cannot read the API keys; in 3 s, requests with one are answered 503"
                );
                self.failure = Some(reason);
            }
            (Some(_), None) => {
                tracing::info!("reading the API keys works again");
                self.failure = None;
            }
            _ => {}
        }
    }
}
