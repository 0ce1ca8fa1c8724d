//! What is counted. Every delivery ends in exactly one `outcome`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{text, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::step::kinds::StepKind;
use crate::step::outcome::Outcome;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    topic: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabels {
    topic: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    language: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    topic: String,
    doing: &'static str,
}

#[derive(Debug)]
pub struct Metrics {
    topic: String,
    registry: Registry,
    messages: Family<OutcomeLabels, Counter<u64, AtomicU64>>,
    running: Family<TopicLabels, Gauge>,
    seconds: Family<KindLabels, Histogram>,
    redis_errors: Family<ErrorLabels, Counter<u64, AtomicU64>>,
    circuit_open: Family<TopicLabels, Gauge>,
    circuit_opened: Family<TopicLabels, Counter<u64, AtomicU64>>,
}

/// From a print statement to the longest time that a step may take.
fn buckets() -> Histogram {
    Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0])
}

impl Metrics {
    #[must_use]
    pub fn new(topic: &str) -> Self {
        let metrics = Self {
            topic: topic.to_owned(),
            registry: Registry::with_prefix("octollm"),
            messages: Family::default(),
            running: Family::default(),
            seconds: Family::new_with_constructor(buckets as fn() -> Histogram),
            redis_errors: Family::default(),
            circuit_open: Family::default(),
            circuit_opened: Family::default(),
        };
        // Shown as 0 from the start.
        metrics.add_running(0);
        metrics.set_circuit_open(false);
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "messages",
            "Deliveries, by how they ended",
            self.messages.clone(),
        );
        registry.register(
            "running_messages",
            "Messages being worked on",
            self.running.clone(),
        );
        registry.register(
            "step_seconds",
            "Time that steps ran in the sandbox",
            self.seconds.clone(),
        );
        registry.register(
            "redis_errors",
            "Errors of Redis that were waited out, by what was being done",
            self.redis_errors.clone(),
        );
        registry.register(
            "circuit_open",
            "Whether the circuit breaker stops this worker, or lets it try one step",
            self.circuit_open.clone(),
        );
        registry.register(
            "circuit_opened",
            "How often the circuit breaker has stopped this worker",
            self.circuit_opened.clone(),
        );
        service::logging::register_metrics(registry);
        self
    }

    pub fn count_outcome(&self, outcome: Outcome, count: usize) {
        let labels = OutcomeLabels {
            topic: self.topic.clone(),
            outcome: outcome.as_str(),
        };
        self.messages.get_or_create(&labels).inc_by(count as u64);
    }

    pub fn add_running(&self, change: i64) {
        self.running.get_or_create(&self.topic()).inc_by(change);
    }

    pub fn observe_step(&self, kind: &dyn StepKind, seconds: f64) {
        let language = kind.name();
        self.seconds
            .get_or_create(&KindLabels { language })
            .observe(seconds);
    }

    pub fn count_redis_error(&self, doing: &'static str) {
        let topic = self.topic.clone();
        self.redis_errors
            .get_or_create(&ErrorLabels { topic, doing })
            .inc();
    }

    pub fn set_circuit_open(&self, open: bool) {
        self.circuit_open
            .get_or_create(&self.topic())
            .set(i64::from(open));
    }

    pub fn count_circuit_opened(&self) {
        self.circuit_opened.get_or_create(&self.topic()).inc();
    }

    fn topic(&self) -> TopicLabels {
        TopicLabels {
            topic: self.topic.clone(),
        }
    }

    /// The text that Prometheus scrapes.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{Metrics, Outcome};
    use crate::step::kinds;

    #[test]
    fn the_names_are_those_of_every_octollm_process() {
        let metrics = Metrics::new("arm.executor");
        metrics.count_outcome(Outcome::Done, 2);
        metrics.observe_step(kinds::find("shell").unwrap(), 0.02);
        metrics.count_redis_error("read");
        metrics.count_circuit_opened();
        let text = metrics.encode().unwrap();
        for line in [
            "octollm_messages_total{topic=\"arm.executor\",outcome=\"done\"} 2",
            "octollm_running_messages{topic=\"arm.executor\"} 0",
            "octollm_step_seconds_bucket{le=\"0.03\",language=\"shell\"} 1",
            "octollm_redis_errors_total{topic=\"arm.executor\",doing=\"read\"} 1",
            "octollm_circuit_open{topic=\"arm.executor\"} 0",
            "octollm_circuit_opened_total{topic=\"arm.executor\"} 1",
            "octollm_log_lines_dropped_total 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
