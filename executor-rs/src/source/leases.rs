//! Keeps the leases of what this process works on, on a connection of its own, and tells who has lost one.
//!
//! A lease is never kept past the step's own time limit, so that a worker that hangs is taken over from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contracts::scripts::Script;
use tokio::sync::watch;

use super::link::Link;
use super::{held_call, standings, Entry, Standing};

#[derive(Debug)]
struct Lease {
    until: Instant,
    stop: watch::Sender<bool>,
    lost: Option<Standing>,
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
    /// Turns true when the lease is lost or the process is to end: stop working.
    pub stop: watch::Receiver<bool>,
}

impl Held {
    /// Who has it now, when this lease was lost.
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

    /// Renews from now on, for at most `longest`.
    #[must_use]
    pub fn keep(self: &Arc<Self>, entry: &Entry, longest: Duration) -> Held {
        let (stop, stopped) = watch::channel(false);
        let key = (entry.stream.clone(), entry.id.clone(), entry.delivery);
        let lease = Lease {
            until: Instant::now() + longest,
            stop,
            lost: None,
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
        let due: Vec<Key> = self
            .lock()
            .iter()
            .filter(|(_, lease)| lease.until > now && lease.lost.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        // A stream's lane decides where its lease is renewed: one script touches one slot.
        let mut lanes: HashMap<&str, Vec<&Key>> = HashMap::new();
        for key in &due {
            let lane = key.0.split(':').next().unwrap_or_default();
            lanes.entry(lane).or_default().push(key);
        }
        for held in lanes.values() {
            self.renew(held).await;
        }
    }

    async fn renew(&self, held: &[&Key]) {
        let entries = held
            .iter()
            .map(|(stream, id, delivery)| (stream, id, *delivery));
        let call = held_call(&self.group, &self.consumer, entries);
        match self
            .link
            .script(Script::Renew, &call.keys, &call.args)
            .await
        {
            Ok(answer) => {
                let mut leases = self.lock();
                for (key, standing) in held.iter().zip(standings(&answer)) {
                    if let (Some(lease), true) = (leases.get_mut(*key), standing != Standing::Held)
                    {
                        tracing::warn!(entry = %key.1, ?standing, "lost the lease of an entry; its step is stopped");
                        lease.lost = Some(standing);
                        lease.stop.send_replace(true);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "leases could not be renewed; trying again"),
        }
    }
}
