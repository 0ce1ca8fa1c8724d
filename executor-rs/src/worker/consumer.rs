//! One lane's consumer: reads new entries and starts their steps.

use std::sync::Arc;
use std::time::Duration;

use bus::{Backoff, ConsumerGroup, Entry, Lease, Refusal, StepRun, StoreError};
use contracts::keys::LaneKeys;
use contracts::topology::Topic;

use super::delivery;
use super::priority_reader::PriorityReader;
use super::{Shared, Slots};
use crate::step::outcome::Outcome;
use crate::step::run::StepRunner;

/// How much longer than a step's time limit its lease is renewed: sandbox and completion take time too.
const LEASE_GRACE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Consumer {
    pub group: ConsumerGroup,
    pub keys: LaneKeys,
    pub topic: Arc<Topic>,
    pub runner: Arc<StepRunner>,
    pub shared: Arc<Shared>,
}

impl Consumer {
    /// Read until the order to stop. Fails if Redis refuses it.
    pub async fn read_loop(self: Arc<Self>) -> Result<(), Refusal> {
        let stop = self.shared.supervisor.stop();
        let mut reader = PriorityReader::default();
        let mut backoff = Backoff::default();
        while !stop.is_requested() {
            let capacity = tokio::select! {
                capacity = self.shared.capacity() => capacity,
                () = stop.requested() => break,
            };
            match reader
                .read(&self.group, capacity, || stop.requested())
                .await
            {
                Ok(entries) => {
                    backoff.reset();
                    self.start_all(entries).await;
                }
                Err(error) => {
                    error.check_transient(format!("read {}", self.topic.name))?;
                    self.shared.metrics.count_redis_error("read");
                    tracing::warn!(%error, "cannot read; trying again");
                    stop.sleep(backoff.next_delay()).await;
                }
            }
        }
        Ok(())
    }

    /// Start as many steps as there is capacity for; give back the other entries.
    pub(super) async fn start_all(self: &Arc<Self>, entries: Vec<Entry>) {
        let mut surplus = Vec::new();
        for entry in entries {
            match self.shared.try_take_slots(&entry) {
                Some(slots) if self.shared.breaker.try_start() => self.start(entry, slots),
                _ => surplus.push(entry),
            }
        }
        if !surplus.is_empty() {
            self.release(&surplus).await;
        }
    }

    fn start(self: &Arc<Self>, entry: Entry, slots: Slots) {
        // It counts as running from here on, before its task gets its turn.
        let lease = self.hold(&entry);
        let consumer = self.clone();
        let step = async move {
            delivery::run(&consumer, entry, lease).await;
            drop(slots);
        };
        self.shared.supervisor.spawn_task("step", step);
    }

    pub(super) fn hold(&self, entry: &Entry) -> Lease {
        let run = StepRun::of(entry, &self.keys);
        self.shared
            .leases
            .hold(entry, run, Some(self.lease_limit()))
    }

    /// How long a lease is renewed at most.
    pub(super) fn lease_limit(&self) -> Duration {
        Duration::from_secs(self.topic.timeout_s.unwrap_or(0)) + LEASE_GRACE
    }

    /// Give back entries that were not started.
    pub(super) async fn release(&self, entries: &[Entry]) {
        match self.group.release(entries).await {
            Ok(states) => {
                for state in states {
                    self.shared.metrics.count_outcome(Outcome::from(state), 1);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "unstarted entries stay pending until their lease ends");
            }
        }
    }

    /// At the end: give back what Redis has recorded for this consumer and nothing here works on.
    pub async fn release_unstarted(&self) -> Result<(), StoreError> {
        let mut pending = self.group.pending().await?;
        pending.retain(|entry| !self.shared.leases.holds(entry));
        if !pending.is_empty() {
            self.release(&pending).await;
        }
        Ok(())
    }
}
