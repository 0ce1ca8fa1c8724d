//! Reclaims the entries that other workers abandoned. One that was started before runs in quarantine: alone.

use std::sync::Arc;
use std::time::Duration;

use bus::backoff::random_part;
use bus::{Backoff, DeadConsumers, Entry, StoreError};
use tokio::sync::OwnedMutexGuard;

use super::consumer::Consumer;
use super::delivery;
use crate::step::outcome::Outcome;

impl Consumer {
    /// Look for abandoned entries until the order to stop.
    pub async fn reclaim_loop(self: Arc<Self>) {
        let stop = self.shared.supervisor.stop();
        let heartbeat = Duration::from_secs(self.topic.heartbeat_s);
        let mut backoff = Backoff::default();
        let mut dead_consumers = DeadConsumers::default();
        while !stop.is_requested() {
            let found = match dead_consumers.remove(&self.group).await {
                Ok(()) => self.reclaim_once().await,
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => {
                    backoff.reset();
                    if !found {
                        // With jitter, so that a pool of workers looks all the time and not all at once.
                        stop.sleep(heartbeat / 5 + random_part(heartbeat * 4 / 5))
                            .await;
                    }
                }
                Err(error) => {
                    self.shared.metrics.count_redis_error("claim");
                    tracing::warn!(%error, "cannot look for abandoned entries; trying again");
                    stop.sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Reclaim one entry per stream; answer whether there may be more.
    async fn reclaim_once(self: &Arc<Self>) -> Result<bool, StoreError> {
        let stop = self.shared.supervisor.stop();
        let mut found = false;
        for stream in &self.group.streams {
            // One entry in quarantine at a time, whatever its lane.
            let quarantine = tokio::select! {
                quarantine = self.shared.quarantine.clone().lock_owned() => quarantine,
                () = stop.requested() => return Ok(false),
            };
            tokio::select! {
                _ = self.shared.capacity() => {}
                () = stop.requested() => return Ok(false),
            }
            let claimed = self.group.claim(stream, 1).await?;
            for entry in &claimed.dead {
                tracing::error!(entry, "gave up on an entry that was delivered too often");
            }
            let (dead, ended) = (claimed.dead.len(), claimed.ended.len());
            self.shared.metrics.count_outcome(Outcome::Dead, dead);
            self.shared.metrics.count_outcome(Outcome::RunEnded, ended);
            found = found || !claimed.entries.is_empty() || dead + ended > 0;
            // The script gives at most one entry that was started before.
            let (fresh, started): (Vec<Entry>, Vec<Entry>) = claimed
                .entries
                .into_iter()
                .partition(|entry| entry.delivery == 1);
            self.start_all(fresh).await;
            if let Some(entry) = started.into_iter().next() {
                self.start_in_quarantine(entry, quarantine).await;
            }
        }
        Ok(found)
    }

    /// If the entry brings this process down, it alone is charged for it, not its neighbours.
    async fn start_in_quarantine(self: &Arc<Self>, entry: Entry, quarantine: OwnedMutexGuard<()>) {
        if !self.shared.breaker.try_start() {
            self.release(&[entry]).await;
            return;
        }
        tracing::info!(entry = %entry.id, delivery = entry.delivery, "reclaimed an entry; it runs alone");
        let lease = self.hold(&entry);
        let consumer = self.clone();
        let step = async move {
            let slots = consumer.shared.slots.clone();
            let stop = consumer.shared.supervisor.stop();
            let alone = tokio::select! {
                alone = slots.acquire_many_owned(consumer.topic.concurrency) => alone.ok(),
                () = stop.requested() => None,
            };
            if alone.is_some() && !stop.is_requested() {
                lease.restart_limit(consumer.lease_limit());
                delivery::run(&consumer, entry, lease).await;
            } else {
                consumer.shared.breaker.record_neutral();
                consumer.release(&[entry]).await;
                drop(lease);
            }
            drop((alone, quarantine));
        };
        self.shared
            .supervisor
            .spawn_task("step in quarantine", step);
    }
}
