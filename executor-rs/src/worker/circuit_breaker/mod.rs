//! The worker's circuit breaker: shares the state between its tasks, wakes those who wait, logs and counts.

mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contracts::settings;
use contracts::topology::Topology;
use tokio::sync::Notify;

use super::metrics::Metrics;
use state::{CircuitBreaker as State, Effect, Permits};
pub use state::{FailedStep, Rule};

/// One for the whole process: its lanes share slots and sandbox, so they break together.
#[derive(Debug)]
pub struct CircuitBreaker {
    topic: String,
    state: Mutex<State>,
    changed: Notify,
    metrics: Arc<Metrics>,
}

/// Where several tenants may submit, one tenant's steps alone must not stop the arm for the others.
#[must_use]
pub fn rule(settings: &settings::Worker, topology: &Topology) -> Rule {
    Rule {
        tasks: settings.circuit_breaker_tasks,
        tenants: topology.ingest.tenants.len().min(2),
        cooldown: Duration::from_secs(settings.circuit_breaker_cooldown_s),
    }
}

impl CircuitBreaker {
    #[must_use]
    pub fn new(rule: Rule, topic: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            topic: topic.to_owned(),
            state: Mutex::new(State::new(rule)),
            changed: Notify::new(),
            metrics,
        }
    }

    /// Why the worker is not ready, where the circuit is open.
    #[must_use]
    pub fn unready_reason(&self) -> Option<String> {
        let topic = &self.topic;
        self.lock().is_open().then(|| {
            format!("circuit_open: every step of {topic} failed on this worker, so it starts no more; see its log")
        })
    }

    /// Wait until a step may be started; answer how many at most.
    pub async fn permits(&self) -> usize {
        loop {
            let changed = self.changed.notified();
            let permits = self.lock().permits(Instant::now());
            match permits {
                Permits::Unlimited => return usize::MAX,
                Permits::One { first } => {
                    if first {
                        tracing::info!(
                            topic = self.topic,
                            "circuit breaker half-open: trying one step"
                        );
                    }
                    return 1;
                }
                Permits::None { until: None } => changed.await,
                // Either is a reason to look again.
                Permits::None { until: Some(until) } => {
                    let _ = tokio::time::timeout_at(until.into(), changed).await;
                }
            }
        }
    }

    /// Whether a step may be started now. Its result has to be recorded afterwards.
    pub fn try_start(&self) -> bool {
        self.lock().try_start()
    }

    pub fn record_success(&self, tenant: &str, step: &str) {
        if self.lock().record_success(tenant, step) {
            self.metrics.set_circuit_open(false);
            tracing::info!(
                topic = self.topic,
                "circuit breaker closed: a step succeeded"
            );
        }
        self.changed.notify_waiters();
    }

    /// The step's end says nothing about this worker.
    pub fn record_neutral(&self) {
        self.lock().record_neutral();
        self.changed.notify_waiters();
    }

    /// This worker could not run the step. Answers whether its entry is given back as if it had not been started.
    pub fn record_failure(&self, step: FailedStep<'_>) -> bool {
        let effect = self.lock().record_failure(step, Instant::now());
        if let Effect::Opened { tasks } = effect {
            self.metrics.set_circuit_open(true);
            self.metrics.count_circuit_opened();
            tracing::error!(
                topic = self.topic,
                tasks,
                "circuit breaker open: every step failed, so this worker has stopped reading; see the errors \
                 above, fix or roll back, and restart"
            );
        }
        self.changed.notify_waiters();
        effect.gives_back()
    }

    /// A panic elsewhere cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{rule, Duration};
    use contracts::{settings, topology};
    use std::path::Path;

    #[test]
    fn it_takes_two_tenants_where_two_may_submit() {
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
