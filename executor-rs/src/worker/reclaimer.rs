//! Reclaims the entries that other workers abandoned: into ordinary slots, except for a suspect.

use std::sync::Arc;
use std::time::Duration;

use bus::backoff::random_part;
use bus::{Backoff, ClaimLimits, DeadConsumers, Entry, Refusal, StoreError};
use tokio::sync::OwnedMutexGuard;

use super::consumer::Consumer;
use super::delivery;
use super::suspect_isolation::{run_isolated, slots_alone};
use crate::step::outcome::Outcome;

impl Consumer {
    /// Look for abandoned entries until the order to stop. Fails if Redis refuses it.
    pub async fn reclaim_loop(self: Arc<Self>) -> Result<(), Refusal> {
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
                    error.check_transient(format!("reclaim entries of {}", self.topic.name))?;
                    self.shared.metrics.count_redis_error("claim");
                    tracing::warn!(%error, "cannot look for abandoned entries; trying again");
                    stop.sleep(backoff.next_delay()).await;
                }
            }
        }
        Ok(())
    }

    /// Reclaim entries of each stream while there is capacity; answer whether there may be more.
    async fn reclaim_once(self: &Arc<Self>) -> Result<bool, StoreError> {
        let stop = self.shared.supervisor.stop();
        let mut found = false;
        for stream in &self.group.streams {
            let capacity = tokio::select! {
                capacity = self.shared.capacity() => capacity,
                () = stop.requested() => return Ok(false),
            };
            let place = self.shared.isolation.place();
            let restarts = self.shared.restarts.available_permits();
            let limits = ClaimLimits {
                most: capacity,
                started: restarts.min(capacity),
                suspects: usize::from(place.is_some()),
                last: restarts == super::restart_slots(self.topic.concurrency),
            };
            let claimed = self.group.claim(stream, limits).await?;
            for entry in &claimed.dead {
                tracing::error!(entry, "gave up on an entry that was delivered too often");
            }
            let (dead, ended) = (claimed.dead.len(), claimed.ended.len());
            self.shared.metrics.count_outcome(Outcome::Dead, dead);
            self.shared.metrics.count_outcome(Outcome::RunEnded, ended);
            found = found || !claimed.entries.is_empty() || dead + ended > 0;
            let (suspects, others): (Vec<Entry>, Vec<Entry>) = claimed
                .entries
                .into_iter()
                .partition(|entry| entry.delivery >= self.topic.suspect_from());
            self.start_all(others).await;
            // The script gives at most one.
            if let (Some(entry), Some(place)) = (suspects.into_iter().next(), place) {
                self.start_suspect(entry, place).await;
            }
        }
        Ok(found)
    }

    /// Isolate an entry that may have killed its workers: if it brings this process down, too, nothing else is charged.
    async fn start_suspect(self: &Arc<Self>, entry: Entry, place: OwnedMutexGuard<()>) {
        if !self.shared.breaker.try_start() {
            self.release(&[entry]).await;
            return;
        }
        tracing::info!(entry = %entry.id, delivery = entry.delivery, "reclaimed a suspect; it is isolated");
        let lease = self.hold(&entry);
        let closed = self.shared.isolation.close();
        let consumer = self.clone();
        let step = async move {
            // On its last delivery nothing else may be charged for it at all.
            let strictly = entry.delivery >= consumer.topic.max_deliveries;
            let stop = consumer.shared.supervisor.stop();
            let slots = tokio::select! {
                slots = slots_alone(&consumer.shared.slots, consumer.topic.concurrency, strictly) => slots,
                () = stop.requested() => None,
            };
            match slots {
                Some(slots) if !stop.is_requested() => {
                    lease.restart_limit(consumer.lease_limit());
                    let running = Box::pin(delivery::run(&consumer, entry, lease));
                    run_isolated(running, slots, closed, strictly).await;
                }
                _ => {
                    consumer.shared.breaker.record_neutral();
                    consumer.release(&[entry]).await;
                    drop(lease);
                }
            }
            drop(place);
        };
        self.shared.supervisor.spawn_task("suspect", step);
    }
}
