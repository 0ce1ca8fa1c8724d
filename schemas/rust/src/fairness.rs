//! A topic's window and cap, described as `fairness.lua` reads them. Pure.

use crate::keys::LaneKeys;
use crate::topology::{Topic, Topology};

/// A topic with priorities in one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLimits {
    /// Ended runs, dead letters, what the cap counts, then for each stream: the stream, what waits for it, whose turn it is.
    keys: Vec<String>,
    streams: usize,
    window: u64,
    cap: u64,
    group: String,
}

impl TopicLimits {
    #[must_use]
    pub fn new(topology: &Topology, topic: &Topic, lane: &LaneKeys) -> Self {
        let streams = lane.streams(topic, &topology.priorities);
        let each = streams.iter().flat_map(|stream| {
            [
                stream.clone(),
                LaneKeys::waiting(stream),
                LaneKeys::ring(stream),
            ]
        });
        Self {
            keys: [lane.ended_runs(), lane.dead(), lane.running(topic)]
                .into_iter()
                .chain(each)
                .collect(),
            streams: streams.len(),
            window: topic.window.unwrap_or(0),
            cap: topology.cap_in(topic, lane.lane()),
            group: topic.group.clone(),
        }
    }

    /// Whether it limits anything.
    #[must_use]
    pub fn limits(&self) -> bool {
        self.window > 0 || self.cap > 0
    }

    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The last words of ARGV, where `before` keys of the script come before these.
    #[must_use]
    pub fn args(&self, before: usize) -> Vec<String> {
        let numbers = [before + 1, before + 2, 1, before + 3, self.streams];
        let numbers = numbers.map(|number| number.to_string());
        let limits = [self.window, self.cap].map(|number| number.to_string());
        let group = std::iter::once(self.group.clone());
        numbers.into_iter().chain(limits).chain(group).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a broken assumption ends the test
mod tests {
    use std::path::Path;

    use super::TopicLimits;
    use crate::keys::LaneKeys;
    use crate::topology;

    #[test]
    fn a_topic_is_described_as_its_script_reads_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut topology =
            topology::load(&root.join("streams.yaml"), &root.join("schemas/events")).unwrap();
        topology.lanes.push("l1".to_owned());
        let topic = topology.topics.get_mut("arm.judge").unwrap();
        (topic.window, topic.max_running_per_tenant) = (Some(64), Some(3));
        let topic = &topology.topics["arm.judge"];
        let described = TopicLimits::new(&topology, topic, &LaneKeys::new("l1"));
        assert!(described.limits());
        assert_eq!(
            described.args(4),
            ["5", "6", "1", "7", "3", "64", "1", "judge"]
        );
        assert_eq!(described.keys().len(), 12);
        assert_eq!(
            described.keys()[..6],
            [
                "{l1}:ended-runs",
                "{l1}:dead",
                "{l1}:arm.judge:running",
                "{l1}:arm.judge:high",
                "{l1}:arm.judge:high:waiting",
                "{l1}:arm.judge:high:ring"
            ]
        );
        assert_eq!(topology.cap_in(topic, "l0"), 2);
    }
}
