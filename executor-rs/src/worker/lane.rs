//! The loops of one lane: read what is new, take over what others left, give back what was not started.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use tokio::sync::OwnedSemaphorePermit;

use super::{step, Shared};
use crate::sandbox::Sandbox;
use crate::sink::operations::Outcome;
use crate::source::leases::Held;
use crate::source::link::is_no_group;
use crate::source::pause::{share, Pause};
use crate::source::{Entry, Marker, Source};

/// How long a wait for room lasts before it is begun again; only the order to end makes it shorter.
const WAIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Lane {
    pub source: Source,
    pub sandbox: Arc<Sandbox>,
    pub shared: Arc<Shared>,
}

impl Lane {
    /// Reads until the process is to end. A read that is under way is waited for: what it brings is ours.
    pub async fn read_for_ever(self: Arc<Self>) {
        let mut pause = Pause::default();
        while !self.shared.ending() {
            let room = tokio::select! {
                room = self.shared.room() => room,
                () = self.shared.end_or(WAIT) => continue,
            };
            match self.source.read(room).await {
                Ok(entries) => {
                    pause.over();
                    self.take(entries).await;
                }
                Err(error) => {
                    self.shared.metrics.trouble("read");
                    tracing::warn!(redis = %self.source.calls.shown, %error, "cannot read; trying again");
                    self.shared.end_or(pause.take()).await;
                    if is_no_group(&error) {
                        self.create_groups_once().await;
                    }
                }
            }
        }
    }

    async fn create_groups_once(&self) {
        if let Err(error) = self.source.create_groups().await {
            tracing::warn!(%error, "cannot create consumer groups; trying again");
        }
    }

    /// Starts what there is room for; gives back the rest.
    async fn take(self: &Arc<Self>, entries: Vec<Entry>) {
        let mut surplus = Vec::new();
        for entry in entries {
            match self.shared.slots.clone().try_acquire_owned() {
                Ok(permit) if !self.shared.ending() && self.shared.fuse.begin() => {
                    self.begin(entry, permit);
                }
                _ => surplus.push(entry),
            }
        }
        if !surplus.is_empty() {
            self.release(&surplus).await;
        }
    }

    fn begin(self: &Arc<Self>, entry: Entry, permit: OwnedSemaphorePermit) {
        // From here on it counts as running, before the task itself gets its turn.
        let held = self.keep(&entry);
        let lane = self.clone();
        tokio::spawn(async move {
            step::run(&lane, entry, held).await;
            drop(permit);
        });
    }

    fn keep(&self, entry: &Entry) -> Held {
        let marker = Marker::of(entry, &self.source.keys);
        let longest = step::longest(self.source.topic.timeout_s);
        self.shared.leases.keep(entry, marker, longest)
    }

    /// Looks for abandoned entries until the process is to end.
    pub async fn claim_for_ever(self: Arc<Self>) {
        let mut pause = Pause::default();
        let heartbeat = Duration::from_secs(self.source.topic.heartbeat_s);
        while !self.shared.ending() {
            match self.claim_once().await {
                Ok(more) => {
                    pause.over();
                    if !more {
                        // Jitter, so that a pool of workers looks all the time and not all at once.
                        self.shared
                            .end_or(heartbeat / 5 + share(heartbeat * 4 / 5))
                            .await;
                    }
                }
                Err(error) => {
                    self.shared.metrics.trouble("claim");
                    tracing::warn!(%error, "cannot look for abandoned entries; trying again");
                    self.shared.end_or(pause.take()).await;
                }
            }
        }
    }

    /// Takes over one entry per stream; whether there may be more.
    async fn claim_once(self: &Arc<Self>) -> RedisResult<bool> {
        // One entry in quarantine at a time, whatever its lane.
        let _one_at_a_time = self.shared.claiming.lock().await;
        let mut found = false;
        for stream in &self.source.streams {
            self.shared.room().await;
            if self.shared.ending() {
                return Ok(false);
            }
            let (entries, dead) = self.source.claim(stream, 1).await?;
            for given_up in &dead {
                tracing::error!(entry = %given_up, "gave up on an entry that was delivered too often");
            }
            self.shared.metrics.ended(Outcome::Dead, dead.len());
            found = found || !entries.is_empty() || !dead.is_empty();
            for entry in entries {
                self.take_over(entry).await;
            }
        }
        Ok(found)
    }

    async fn take_over(self: &Arc<Self>, entry: Entry) {
        if entry.delivery == 1 {
            // Released before anyone had begun.
            self.take(vec![entry]).await;
            return;
        }
        if !self.shared.fuse.begin() {
            self.release(&[entry]).await;
            return;
        }
        tracing::info!(entry = %entry.id, delivery = entry.delivery, "took an entry over; it runs alone");
        // In quarantine: if it brings this process down, it is charged for it and not its neighbours.
        let longest = step::longest(self.source.topic.timeout_s);
        let held = self.keep(&entry);
        let all = self.source.topic.concurrency;
        let Ok(alone) = self.shared.slots.clone().acquire_many_owned(all).await else {
            return;
        };
        held.extend(longest);
        if self.shared.ending() {
            drop(held);
            self.release(&[entry]).await;
            return;
        }
        step::run(self, entry, held).await;
        drop(alone);
    }

    async fn release(&self, entries: &[Entry]) {
        match self.source.release(entries).await {
            Ok(standings) => {
                for standing in standings {
                    self.shared.metrics.ended(Outcome::of(standing), 1);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "unstarted entries stay pending until their lease ends");
            }
        }
    }

    /// At the end: whatever Redis says we hold and nobody here works on.
    pub async fn release_unstarted(&self) -> RedisResult<()> {
        let mut pending = self.source.pending().await?;
        pending.retain(|entry| !self.shared.leases.holds(entry));
        if !pending.is_empty() {
            self.release(&pending).await;
        }
        Ok(())
    }
}

impl Shared {
    /// Waits until something may be begun; how much at most. Keeps no slot meanwhile: a reader that did would keep
    /// other lanes from working while it is blocked.
    async fn room(&self) -> usize {
        drop(self.slots.acquire().await);
        let room = self.fuse.room().await;
        room.min(self.slots.available_permits().max(1))
    }

    #[must_use]
    pub fn ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Waits, but not past the order to end.
    pub async fn end_or(&self, wait: Duration) {
        let ended = self.ended.notified();
        if !self.ending() {
            // Either is a reason to go on.
            let _ = tokio::time::timeout(wait, ended).await;
        }
    }
}
