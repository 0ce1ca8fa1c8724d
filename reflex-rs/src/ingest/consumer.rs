//! Reads one tenant's ingest stream with as many entries in hand as there are slots, keeps their leases, and leaves in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::events::Tenant;
use redis::aio::MultiplexedConnection;
use service::Stop;
use tokio::task::JoinSet;

use super::handler::EntryHandler;
use super::held::Held;
use super::stream::Stream;
use super::{slots_of_each, Common, Entry};
use crate::caller::Caller;
use bus::Backoff;
use bus::StoreError;

/// How long a full consumer waits before it looks after its leases again.
const TICK: Duration = Duration::from_secs(1);

/// One tenant's consumer.
pub struct Consumer {
    handler: Arc<EntryHandler>,
    held: Held,
    running: JoinSet<()>,
    slots: usize,
    heartbeat: Duration,
    looked_after: Option<Instant>,
}

/// Runs until `stop` turns true, then ends in order.
pub async fn consume(common: Arc<Common>, tenant: Tenant, stop: Stop) {
    Consumer::new(common, tenant).run(stop).await;
}

impl Consumer {
    #[must_use]
    pub fn new(common: Arc<Common>, tenant: Tenant) -> Self {
        let topology = &common.service.topology;
        let ingest = &topology.ingest;
        let stream = Stream::new(&tenant, ingest, &common.name, common.redis.clone());
        Self {
            held: Held::default(),
            running: JoinSet::new(),
            slots: slots_of_each(topology),
            heartbeat: Duration::from_secs(ingest.heartbeat_s),
            looked_after: None,
            handler: Arc::new(EntryHandler {
                common,
                caller: Caller::new(tenant),
                stream,
            }),
        }
    }

    async fn run(mut self, stop: Stop) {
        let mut backoff = Backoff::default();
        let mut reading = None;
        while !stop.is_requested() {
            match self.turn(&mut reading, &stop).await {
                Ok(()) => backoff.reset(),
                Err(trouble) => {
                    // A new connection next time: this one may hang or belong to a server that is gone.
                    reading = None;
                    if let StoreError::Refused(_) = trouble {
                        tracing::warn!(
                            stream = self.handler.stream.key,
                            "cannot read an ingest stream: {trouble}"
                        );
                    }
                    tokio::select! {
                        () = backoff.wait() => {}
                        () = stop.requested() => {}
                    }
                }
            }
        }
        self.end().await;
    }

    /// Looks after the leases when due, then reads once, or waits for a slot.
    async fn turn(
        &mut self,
        reading: &mut Option<(MultiplexedConnection, Option<i64>)>,
        stop: &Stop,
    ) -> Result<(), StoreError> {
        while self.running.try_join_next().is_some() {}
        if self
            .looked_after
            .is_none_or(|last| last.elapsed() >= self.heartbeat)
        {
            self.look_after().await?;
            self.looked_after = Some(Instant::now());
        }
        let free = self.free();
        if free == 0 {
            tokio::select! {
                _ = self.running.join_next() => {}
                () = tokio::time::sleep(TICK.min(self.heartbeat)) => {}
                () = stop.requested() => {}
            }
            return Ok(());
        }
        if reading.is_none() {
            *reading = Some(self.handler.stream.connect().await?);
        }
        if let Some((connection, client)) = reading {
            let entries = self.read(connection, *client, free, stop).await?;
            self.start(entries);
        }
        Ok(())
    }

    /// A read is never dropped half-way: Redis may just be handing entries to it.
    async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        client: Option<i64>,
        free: usize,
        stop: &Stop,
    ) -> Result<Vec<Entry>, StoreError> {
        let stream = &self.handler.stream;
        let read = stream.read(connection, free);
        tokio::pin!(read);
        tokio::select! {
            entries = &mut read => return entries,
            () = stop.requested() => {}
        }
        if let Err(trouble) = stream.wake(client).await {
            tracing::debug!("a waiting read cannot be woken, so its end is waited for: {trouble}");
        }
        read.await
    }

    /// Renews first: an entry in our hands must not look abandoned.
    async fn look_after(&mut self) -> Result<(), StoreError> {
        let stream = &self.handler.stream;
        let mine = self.held.list();
        if !mine.is_empty() {
            let lost = stream.renew(&mine).await?;
            if !lost.is_empty() {
                tracing::warn!(
                    stream = stream.key,
                    count = lost.len(),
                    "lost leases: others work on these entries now"
                );
            }
            self.held.lost(&lost);
        }
        let free = self.free();
        if free > 0 {
            let claimed = stream.claim(free).await?;
            self.start(claimed);
        }
        Ok(())
    }

    fn free(&self) -> usize {
        self.slots.saturating_sub(self.running.len())
    }

    fn start(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let Some(mark) = self.held.take(&entry.id, entry.delivery) else {
                continue;
            };
            let id = entry.id.clone();
            let entry_handler = Arc::clone(&self.handler);
            let handler = self.running.spawn(async move {
                if let Err(error) = entry_handler.handle(&entry).await {
                    tracing::error!(
                        entry = entry.id,
                        "an ingest entry is left to others: {error}"
                    );
                }
                drop(mark);
            });
            self.held.set_handler(&id, handler);
        }
    }

    /// Lets running work end, gives back what did not, and leaves the group.
    async fn end(mut self) {
        let longest = self.handler.common.drain;
        let all = async { while self.running.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(longest, all).await.is_ok();
        let left = self.held.list();
        self.running.shutdown().await;
        let stream = &self.handler.stream;
        if !ended {
            tracing::warn!(
                stream = stream.key,
                left = left.len(),
                "entries did not end within reflex.drain_s"
            );
            if let Err(trouble) = stream.release(&left).await {
                tracing::warn!(
                    stream = stream.key,
                    "they wait for their lease's end: {trouble}"
                );
            }
        }
        if let Err(trouble) = stream.leave().await {
            tracing::warn!(stream = stream.key, "could not leave the group: {trouble}");
        }
    }
}
