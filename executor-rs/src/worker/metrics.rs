//! What is counted, and its text for Prometheus. Every delivery ends in exactly one `outcome`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{text, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::sandbox::Language;
use crate::sink::operations::Outcome;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    topic: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTopic {
    topic: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLanguage {
    language: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Trouble {
    topic: String,
    doing: &'static str,
}

#[derive(Debug)]
pub struct Metrics {
    topic: String,
    registry: Registry,
    messages: Family<Ended, Counter<u64, AtomicU64>>,
    running: Family<OfTopic, Gauge>,
    seconds: Family<OfLanguage, Histogram>,
    trouble: Family<Trouble, Counter<u64, AtomicU64>>,
    fused: Family<OfTopic, Gauge>,
    blown: Family<OfTopic, Counter<u64, AtomicU64>>,
}

/// From a print to the longest a step may take.
fn buckets() -> Histogram {
    Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0])
}

impl Metrics {
    #[must_use]
    pub fn new(topic: &str) -> Self {
        let mut registry = Registry::default();
        let messages = Family::default();
        let running: Family<OfTopic, Gauge> = Family::default();
        let seconds = Family::new_with_constructor(buckets as fn() -> Histogram);
        let trouble = Family::default();
        let fused: Family<OfTopic, Gauge> = Family::default();
        let blown = Family::default();
        registry.register(
            "octollm_messages",
            "Deliveries by how they ended",
            messages.clone(),
        );
        registry.register(
            "octollm_running",
            "Entries being worked on",
            running.clone(),
        );
        registry.register(
            "octollm_step_seconds",
            "From a step's start to its end",
            seconds.clone(),
        );
        registry.register(
            "octollm_redis_errors",
            "Errors of Redis that were waited out",
            trouble.clone(),
        );
        registry.register(
            "octollm_fused",
            "Whether the fuse stops this worker, or it tries a first message after that",
            fused.clone(),
        );
        registry.register(
            "octollm_fuse_blown",
            "How often this worker was stopped by its fuse",
            blown.clone(),
        );
        let metrics = Self {
            topic: topic.to_owned(),
            registry,
            messages,
            running,
            seconds,
            trouble,
            fused,
            blown,
        };
        // Shown as 0 from the start.
        metrics.running(0);
        metrics.fused(false);
        metrics
    }

    pub fn ended(&self, outcome: Outcome, count: usize) {
        let labels = Ended {
            topic: self.topic.clone(),
            outcome: outcome.as_str(),
        };
        self.messages.get_or_create(&labels).inc_by(count as u64);
    }

    pub fn running(&self, change: i64) {
        let topic = self.topic.clone();
        self.running
            .get_or_create(&OfTopic { topic })
            .inc_by(change);
    }

    pub fn took(&self, language: Language, seconds: f64) {
        let language = language.as_str();
        self.seconds
            .get_or_create(&OfLanguage { language })
            .observe(seconds);
    }

    pub fn trouble(&self, doing: &'static str) {
        let topic = self.topic.clone();
        self.trouble.get_or_create(&Trouble { topic, doing }).inc();
    }

    pub fn fused(&self, out: bool) {
        let topic = self.topic.clone();
        self.fused
            .get_or_create(&OfTopic { topic })
            .set(i64::from(out));
    }

    pub fn blown(&self) {
        let topic = self.topic.clone();
        self.blown.get_or_create(&OfTopic { topic }).inc();
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{Language, Metrics, Outcome};

    #[test]
    fn the_names_are_those_of_every_octollm_process() {
        let metrics = Metrics::new("arm.executor");
        metrics.ended(Outcome::Done, 2);
        metrics.took(Language::Shell, 0.02);
        metrics.trouble("read");
        metrics.blown();
        let text = metrics.text().unwrap_or_default();
        for line in [
            "octollm_messages_total{topic=\"arm.executor\",outcome=\"done\"} 2",
            "octollm_running{topic=\"arm.executor\"} 0",
            "octollm_step_seconds_bucket{le=\"0.03\",language=\"shell\"} 1",
            "octollm_redis_errors_total{topic=\"arm.executor\",doing=\"read\"} 1",
            "octollm_fused{topic=\"arm.executor\"} 0",
            "octollm_fuse_blown_total{topic=\"arm.executor\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
