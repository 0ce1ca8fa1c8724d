//! The worker's fuse at work: what waits for it, and what it says to people.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contracts::settings;
use contracts::topology::Topology;
use tokio::sync::Notify;

use super::metrics::Metrics;
use crate::policy::fuse::{self, Broke, Room, Rule};

/// Of the whole process: its lanes share slots and sandbox, so they break together.
#[derive(Debug)]
pub struct Fuse {
    topic: String,
    cooldown: Duration,
    decides: Mutex<fuse::Fuse>,
    changed: Notify,
    metrics: Arc<Metrics>,
}

/// Where several tenants may send, one tenant's steps alone must not stop the arm for the others.
pub fn rule(settings: &settings::Worker, topology: &Topology) -> Rule {
    Rule {
        tasks: settings.circuit_breaker_tasks,
        tenants: topology.ingest.tenants.len().min(2),
        cooldown: Duration::from_secs(settings.circuit_breaker_cooldown_s),
    }
}

impl Fuse {
    pub fn new(rule: Rule, topic: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            topic: topic.to_owned(),
            cooldown: rule.cooldown,
            decides: Mutex::new(fuse::Fuse::new(rule)),
            changed: Notify::new(),
            metrics,
        }
    }

    /// What speaks against being ready.
    pub fn reason(&self) -> Option<String> {
        let topic = &self.topic;
        self.lock().out().then(|| {
            format!("fused: {topic} is not worked on here, since its handler broke on everything; see the log")
        })
    }

    /// Waits until something may be begun; how much at most.
    pub async fn room(&self) -> usize {
        loop {
            let changed = self.changed.notified();
            let room = self.lock().room(Instant::now());
            match room {
                Room::All => return usize::MAX,
                Room::One { first } => {
                    if first {
                        tracing::info!(topic = self.topic, "the fuse lets one message through");
                    }
                    return 1;
                }
                Room::Nothing { until: None } => changed.await,
                // Either is a reason to look again.
                Room::Nothing { until: Some(until) } => {
                    let _ = tokio::time::timeout_at(until.into(), changed).await;
                }
            }
        }
    }

    /// Whether a step may be begun now. Whoever begins one tells afterwards how it went.
    pub fn begin(&self) -> bool {
        self.lock().begin()
    }

    pub fn well(&self, tenant: &str) {
        if self.lock().well(tenant) {
            self.metrics.fused(false);
            tracing::info!(
                topic = self.topic,
                "the fuse is in again: a message went well"
            );
        }
        self.changed.notify_waiters();
    }

    pub fn undecided(&self) {
        self.lock().undecided();
        self.changed.notify_waiters();
    }

    /// Whether the entry is to be given back, as if it had not been begun.
    pub fn broke(&self, task: &str, tenant: &str) -> bool {
        let led_to = self.lock().broke(task, tenant, Instant::now());
        if let Broke::Blown { tasks } = led_to {
            self.metrics.fused(true);
            self.metrics.blown();
            tracing::error!(
                topic = self.topic,
                tasks,
                tries_one_in_s = self.cooldown.as_secs(),
                "the fuse is out: the handler breaks on everything, and nothing more is read here; see the errors \
                 above, mend or roll back, and restart"
            );
        }
        self.changed.notify_waiters();
        led_to.gives_back()
    }

    /// A panic elsewhere cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, fuse::Fuse> {
        self.decides.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a broken assumption ends the test

    use super::{rule, Duration};
    use contracts::{settings, topology};
    use std::path::Path;

    #[test]
    fn it_takes_two_tenants_where_two_may_send() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = std::fs::read_to_string(root.join("streams.yaml")).unwrap();
        let settings = settings::load_from(&std::collections::BTreeMap::new()).unwrap();
        for (tenants, needed) in [("default", 1), ("a, b", 2), ("a, b, c", 2)] {
            let text = text.replace("tenants: [default]", &format!("tenants: [{tenants}]"));
            let topology = topology::parse(&text, &root.join("schemas/events")).unwrap();
            let rule = rule(&settings.worker, &topology);
            assert_eq!((rule.tasks, rule.tenants), (5, needed), "{tenants}");
            assert_eq!(rule.cooldown, Duration::from_secs(60));
        }
    }
}
