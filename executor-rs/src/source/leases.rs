//! Keeps the leases of what this process works on, on a connection of its own, and tells who has lost one.
//!
//! A lease is never kept past the step's own time limit, so that a worker that hangs is taken over from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus::Script;
use tokio::sync::watch;

use super::link::Link;
use super::{held_call, standings, Entry, Marker, Standing};

#[derive(Debug)]
struct Lease {
    until: Instant,
    stop: watch::Sender<bool>,
    lost: Option<Standing>,
    marker: Option<Marker>,
}

/// Stream, entry id and delivery: an entry that was lost and comes back here is another lease.
type Key = (String, String, u64);

/// All leases of one consumer.
#[derive(Debug)]
pub struct Leases {
    link: Link,
    group: String,
    consumer: String,
    held: Mutex<HashMap<Key, Lease>>,
}

/// One lease; given up when dropped.
#[derive(Debug)]
pub struct Held {
    leases: Arc<Leases>,
    key: Key,
    /// Turns true when the lease is lost, the task cancelled or the process to end: stop working.
    pub stop: watch::Receiver<bool>,
}

impl Held {
    /// What became of the entry, when this lease was lost.
    #[must_use]
    pub fn lost(&self) -> Option<Standing> {
        self.leases
            .lock()
            .get(&self.key)
            .and_then(|lease| lease.lost)
    }

    /// Work begins now: the time limit counts from here.
    pub fn extend(&self, longest: Duration) {
        if let Some(lease) = self.leases.lock().get_mut(&self.key) {
            lease.until = Instant::now() + longest;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.key);
    }
}

impl Leases {
    #[must_use]
    pub fn new(link: Link, group: &str, consumer: &str) -> Arc<Self> {
        Arc::new(Self {
            link,
            group: group.to_owned(),
            consumer: consumer.to_owned(),
            held: Mutex::default(),
        })
    }

    /// A panic elsewhere cannot leave the map half written.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews from now on, for at most `longest`, while the marker does not say that its task is cancelled.
    #[must_use]
    pub fn keep(
        self: &Arc<Self>,
        entry: &Entry,
        marker: Option<Marker>,
        longest: Duration,
    ) -> Held {
        let (stop, stopped) = watch::channel(false);
        let key = (entry.stream.clone(), entry.id.clone(), entry.delivery);
        let lease = Lease {
            until: Instant::now() + longest,
            stop,
            lost: None,
            marker,
        };
        self.lock().insert(key.clone(), lease);
        Held {
            leases: self.clone(),
            key,
            stop: stopped,
        }
    }

    #[must_use]
    pub fn holds(&self, entry: &Entry) -> bool {
        let key = (entry.stream.clone(), entry.id.clone(), entry.delivery);
        self.lock().contains_key(&key)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tells everything that runs to stop.
    pub fn stop_all(&self) {
        for lease in self.lock().values() {
            lease.stop.send_replace(true);
        }
    }

    /// Renews all, every `heartbeat`, for ever.
    pub async fn run(&self, heartbeat: Duration) {
        let mut beat = tokio::time::interval(heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.beat().await;
        }
    }

    /// Renews once.
    pub async fn beat(&self) {
        let now = Instant::now();
        self.renew_where(|lease| lease.until > now).await;
    }

    /// Looks at once at the steps of a task that is said to be cancelled; those that are, are stopped.
    pub async fn cancel(&self, marker: &str) {
        self.renew_where(|lease| lease.marker.as_ref().is_some_and(|one| one.key == marker))
            .await;
    }

    async fn renew_where(&self, holds: impl Fn(&Lease) -> bool) {
        let due: Vec<(Key, Option<Marker>)> = self
            .lock()
            .iter()
            .filter(|(_, lease)| lease.lost.is_none() && holds(lease))
            .map(|(key, lease)| (key.clone(), lease.marker.clone()))
            .collect();
        // A stream's lane decides where its lease is renewed: one script touches one slot.
        let mut lanes: HashMap<&str, Vec<&(Key, Option<Marker>)>> = HashMap::new();
        for one in &due {
            let lane = one.0 .0.split(':').next().unwrap_or_default();
            lanes.entry(lane).or_default().push(one);
        }
        for held in lanes.values() {
            self.renew(held).await;
        }
    }

    async fn renew(&self, held: &[&(Key, Option<Marker>)]) {
        let entries = held
            .iter()
            .map(|((stream, id, delivery), _)| (stream, id, *delivery));
        let mut call = held_call(&self.group, &self.consumer, entries);
        for (number, (_, marker)) in held.iter().enumerate() {
            if let Some(marker) = marker {
                call.arg(number + 1);
                let index = call.key(&marker.key);
                call.arg(index);
                call.arg(&marker.tenant);
            }
        }
        match self
            .link
            .script(Script::Renew, &call.keys, &call.args)
            .await
        {
            Ok(answer) => {
                let mut leases = self.lock();
                for ((key, _), standing) in held.iter().zip(standings(&answer)) {
                    if let (Some(lease), true) = (leases.get_mut(key), standing != Standing::Held) {
                        if standing == Standing::Cancelled {
                            tracing::info!(entry = %key.1, "a task was cancelled; its step is stopped");
                        } else {
                            tracing::warn!(entry = %key.1, ?standing, "lost the lease of an entry; its step is stopped");
                        }
                        lease.lost = Some(standing);
                        lease.stop.send_replace(true);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "leases could not be renewed; trying again"),
        }
    }
}
