//! Names of every Redis key. Nothing else in Rust puts a key together.

use crate::ids::sha256_hex;
use crate::topology::Topic;

/// Hash: the id of each valid API key and its record. The three keys share a hash tag of their own, outside the lanes.
pub const API_KEYS: &str = "{api-keys}";
/// String: changes with every publication of the keys.
pub const API_KEYS_VERSION: &str = "{api-keys}:version";
/// Hash: the id of each API key, and when it was last used (ms since 1970).
pub const API_KEYS_USED: &str = "{api-keys}:used";

/// The keys of one lane; all share its hash tag, so that one script may touch any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneKeys {
    lane: String,
}

impl LaneKeys {
    pub fn new(lane: impl Into<String>) -> Self {
        Self { lane: lane.into() }
    }

    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane
    }

    fn key(&self, rest: &str) -> String {
        format!("{{{}}}:{rest}", self.lane)
    }

    /// Stream of a topic; the priority counts only where the topic has priorities.
    #[must_use]
    pub fn stream(&self, topic: &Topic, priority: Option<&str>) -> String {
        match priority {
            Some(priority) if topic.priorities => self.key(&format!("{}:{priority}", topic.name)),
            _ if topic.priorities => self.key(&format!("{}:normal", topic.name)),
            _ => self.key(&topic.name),
        }
    }

    /// All streams of a topic, in the order of reading.
    #[must_use]
    pub fn streams(&self, topic: &Topic, priorities: &[String]) -> Vec<String> {
        if topic.priorities {
            priorities
                .iter()
                .map(|priority| self.stream(topic, Some(priority)))
                .collect()
        } else {
            vec![self.stream(topic, None)]
        }
    }

    /// Hash: what waits for a stream, and the numbers of each tenant's queue.
    #[must_use]
    pub fn waiting(stream: &str) -> String {
        format!("{stream}:waiting")
    }

    /// Sorted set: whose turn it is to put something on a stream.
    #[must_use]
    pub fn ring(stream: &str) -> String {
        format!("{stream}:ring")
    }

    /// Sorted set: which entries each tenant has on the streams of a topic with a cap.
    #[must_use]
    pub fn running(&self, topic: &Topic) -> String {
        self.key(&format!("{}:running", topic.name))
    }

    /// Hash: the in-flight index.
    #[must_use]
    pub fn in_flight(&self) -> String {
        self.key("in-flight")
    }

    #[must_use]
    pub fn schedule(&self) -> String {
        self.key("schedule")
    }

    #[must_use]
    pub fn messages(&self) -> String {
        self.key("schedule:messages")
    }

    #[must_use]
    pub fn dead(&self) -> String {
        self.key("dead")
    }

    #[must_use]
    pub fn done(&self) -> String {
        self.key("steps.done")
    }

    #[must_use]
    pub fn events(&self) -> String {
        self.key("events")
    }

    /// String that is only ever written: a replica that has it has all that was written before.
    #[must_use]
    pub fn barrier(&self) -> String {
        self.key("barrier")
    }

    /// Publish-subscribe channel: what every worker must know at once.
    #[must_use]
    pub fn control(&self) -> String {
        self.key("control")
    }

    /// Sorted set: runs that ended with steps in flight, as `<task>.<run> <tenant>`; score: until when (s since 1970).
    #[must_use]
    pub fn ended_runs(&self) -> String {
        self.key("ended-runs")
    }

    #[must_use]
    pub fn status(&self, task: &str) -> String {
        self.key(&format!("status:{task}"))
    }

    /// String: a bucket of the quota of a tenant or an API key; `limit` is what it counts. See `lua/grant_quota.lua`.
    #[must_use]
    pub fn quota(&self, owner: &str, limit: &str) -> String {
        self.key(&format!("quota:{owner}:{limit}"))
    }

    /// Hash: the open tasks whose owners have a quota of them. See `lua/open_tasks.lua`.
    #[must_use]
    pub fn open_tasks(&self) -> String {
        self.key("open-tasks")
    }

    /// Sorted set: the owners of the open tasks.
    #[must_use]
    pub fn open_task_owners(&self) -> String {
        self.key("open-tasks:owners")
    }

    /// The key is hashed: it is a producer's text and may be long or private.
    #[must_use]
    pub fn idempotency(&self, tenant: &str, key: &str) -> String {
        self.key(&format!(
            "idempotency:{tenant}:{}",
            sha256_hex(key.as_bytes())
        ))
    }
}

/// Hash: JSON Schema of the input by kind, see `workers/octollm/protocol/kinds.py`; it is outside the lanes.
pub const KINDS: &str = "{kinds}";
/// String: digest of that hash.
pub const KINDS_VERSION: &str = "{kinds}:version";

/// Ingest stream of a tenant; it is outside the lanes.
#[must_use]
pub fn ingest(tenant: &str) -> String {
    format!("ingest:{tenant}")
}
