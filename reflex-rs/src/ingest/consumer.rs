//! Reads one tenant's ingest stream, works on as many entries at once as there are slots, and leaves in order.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{
    Backoff, ClaimLimits, ConsumerGroup, DeadConsumers, Entry, Leases, Reader, Refusal, StoreError,
};
use contracts::events::Tenant;
use futures_util::FutureExt;
use service::{Stop, Supervisor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::handler::EntryHandler;
use super::remover::Remover;
use super::{slots_of_each, Common};
use crate::caller::Caller;

/// How long what was interrupted at the end may take to give up.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// One tenant's consumer.
pub struct Consumer {
    handler: Arc<EntryHandler>,
    leases: Arc<Leases>,
    supervisor: Supervisor,
    slots: Arc<Semaphore>,
    slot_count: u32,
    /// Slots that are free before anything is read: a command for one entry costs almost as much as one for many.
    least_free: u32,
    heartbeat: Duration,
    drain: Duration,
}

impl Consumer {
    #[must_use]
    pub fn new(common: Arc<Common>, tenant: Tenant, supervisor: Supervisor) -> Self {
        let topology = &common.service.topology;
        let ingest = &topology.ingest;
        let client = common.redis.clone();
        let slot_count = slots_of_each(topology);
        let group = ConsumerGroup::of_ingest(client, &tenant, ingest, &common.name);
        let (remover, removals) = Remover::new(group.clone());
        supervisor.spawn_loop("ingest removals", removals.run());
        Self {
            leases: Arc::clone(&common.leases),
            supervisor,
            slots: Arc::new(Semaphore::new(slot_count as usize)),
            slot_count,
            least_free: (slot_count / 4).max(1),
            heartbeat: Duration::from_secs(ingest.heartbeat_s),
            drain: common.drain,
            handler: Arc::new(EntryHandler {
                group,
                remover,
                common,
                caller: Caller::new(tenant),
            }),
        }
    }

    /// Run until the order to stop, then end in order. Fails if Redis refuses to let this read or claim; a key of
    /// another type, which a producer can put there, only turns readiness red.
    pub async fn run(self) -> Result<(), Refusal> {
        let stop = self.supervisor.stop();
        let mut reader = Reader::default();
        let mut backoff = Backoff::default();
        let mut last_claim = None;
        let mut dead_consumers = DeadConsumers::default();
        while !stop.is_requested() {
            let turn = match dead_consumers.remove(&self.handler.group).await {
                Ok(()) => self.turn(&mut reader, &mut last_claim, &stop).await,
                Err(error) => Err(error),
            };
            match turn {
                Ok(()) => {
                    self.handler.common.health.succeeded(self.stream());
                    backoff.reset();
                }
                Err(error) if error.is_wrong_type() => {
                    let health = &self.handler.common.health;
                    health.failed(self.stream(), error.to_string());
                    tracing::warn!(stream = self.stream(), %error, "cannot read an ingest stream; trying again");
                    stop.sleep(backoff.next_delay()).await;
                }
                Err(error) => {
                    error.check_transient(format!("read {}", self.stream()))?;
                    // The client reports an outage once.
                    tracing::debug!(stream = self.stream(), %error, "cannot read an ingest stream; trying again");
                    stop.sleep(backoff.next_delay()).await;
                }
            }
        }
        self.end().await;
        Ok(())
    }

    fn stream(&self) -> &str {
        &self.handler.group.streams[0]
    }

    /// Wait for free slots; claim abandoned entries when that is due; then read once.
    async fn turn(
        &self,
        reader: &mut Reader,
        last_claim: &mut Option<Instant>,
        stop: &Stop,
    ) -> Result<(), StoreError> {
        let group = &self.handler.group;
        tokio::select! {
            // Closed it never is.
            slots = self.slots.acquire_many(self.least_free) => drop(slots),
            () = stop.requested() => return Ok(()),
        }
        if last_claim.is_none_or(|last| last.elapsed() >= self.heartbeat) {
            let limits = ClaimLimits {
                most: self.free_slots(),
                started: 0,
                suspects: 0,
                last: false,
            };
            let claimed = group.claim(self.stream(), limits).await?;
            *last_claim = Some(Instant::now());
            self.start_all(claimed.entries);
        }
        let free = self.free_slots();
        if free > 0 {
            let entries = reader
                .read(group, &group.streams, free, true, stop.requested())
                .await?;
            self.start_all(entries);
        }
        Ok(())
    }

    fn free_slots(&self) -> usize {
        self.slots.available_permits()
    }

    fn start_all(&self, entries: Vec<Entry>) {
        for entry in entries {
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                self.start(entry, slot);
            } else {
                // Redis gave more than was asked for.
                tracing::error!(
                    entry = entry.id,
                    "no slot for an ingest entry; it stays pending"
                );
            }
        }
    }

    fn start(&self, entry: Entry, slot: OwnedSemaphorePermit) {
        let lease = self.leases.hold(&entry, None, None);
        let handler = Arc::clone(&self.handler);
        self.supervisor.spawn_task("ingest entry", async move {
            let ended = AssertUnwindSafe(handler.handle(&entry)).catch_unwind();
            tokio::select! {
                ended = ended => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(entry = entry.id, %error, "cannot work on an ingest entry; it is left to others");
                    }
                    // One poisoned entry does not end the process; it is delivered again until it is given up on.
                    Err(_) => {
                        tracing::error!(entry = entry.id, "working on an ingest entry panicked; it is left to others");
                    }
                },
                () = lease.until_revoked() => {}
            }
            drop((lease, slot));
        });
    }

    /// Let running work end, give back what did not, and leave the group.
    async fn end(self) {
        let group = &self.handler.group;
        if !self.all_ended_within(self.drain).await {
            let unfinished = self.leases.held_on(self.stream());
            tracing::warn!(
                stream = self.stream(),
                unfinished = unfinished.len(),
                "entries did not end within reflex.drain_s; they are given back"
            );
            self.leases.revoke_on(self.stream());
            self.all_ended_within(ABORT_TIMEOUT).await;
            if let Err(error) = group.release(&unfinished).await {
                tracing::warn!(stream = self.stream(), %error, "entries stay pending until their lease ends");
            }
        }
        if let Err(error) = group.leave().await {
            tracing::warn!(stream = self.stream(), %error, "could not leave the consumer group");
        }
    }

    async fn all_ended_within(&self, limit: Duration) -> bool {
        let all = self.slots.acquire_many(self.slot_count);
        tokio::time::timeout(limit, all).await.is_ok()
    }
}
