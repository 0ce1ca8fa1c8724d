//! `streams.yaml` as frozen types. Loads strictly: wiring with a gap is refused with what to change.
//!
//! Owns the file's form; what must hold beyond it is in `checks`. The same as Python's `octollm.topology`. Knows no Redis.

mod checks;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;

use crate::ids::lane_index;
use crate::yaml;

/// Why the topology was refused; the text names the gap and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct TopologyError {
    pub path: PathBuf,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    pub lanes: Vec<String>,
    /// In the order of reading.
    pub priorities: Vec<String>,
    pub ingest: Ingest,
    pub topics: IndexMap<String, Topic>,
    pub live: IndexMap<String, EventStream>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    lanes: Vec<String>,
    priorities: Vec<String>,
    ingest: Ingest,
    topics: IndexMap<String, Topic>,
    live: IndexMap<String, EventStream>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    pub description: String,
    pub accepts: Vec<String>,
    pub group: String,
    pub handler: String,
    pub tenants: Vec<String>,
    pub concurrency: u32,
    pub lease_s: u64,
    pub heartbeat_s: u64,
    pub max_deliveries: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// The key in the file; filled in by the loader.
    #[serde(skip)]
    pub name: String,
    pub description: String,
    pub accepts: Vec<String>,
    pub group: String,
    pub handler: String,
    #[serde(default)]
    pub priorities: bool,
    pub concurrency: u32,
    pub lease_s: u64,
    pub heartbeat_s: u64,
    pub max_deliveries: u64,
    /// Entries per stream, with what waits for it, above which admission answers 503; 0 means no mark.
    #[serde(default)]
    pub high_water: u64,
    /// Entries per stream that nobody has read yet; beyond it work waits, a queue per tenant. None: nothing waits.
    #[serde(default)]
    pub window: Option<u64>,
    /// Over all lanes. Arms only; none: no cap.
    #[serde(default)]
    pub max_running_per_tenant: Option<u64>,
    #[serde(default)]
    pub timeout_s: Option<u64>,
    #[serde(default)]
    pub retry: Option<Retry>,
}

impl Topic {
    /// The delivery from which an entry may be what killed its earlier workers, so that it is isolated. One lost worker
    /// says nothing about an entry: deploys and machines lose workers, too.
    #[must_use]
    pub fn suspect_from(&self) -> u64 {
        self.max_deliveries.min(3)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    pub max_failures: u64,
    pub base_ms: u64,
    pub cap_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventStream {
    pub description: String,
    pub accepts: Vec<String>,
    pub max_length: u64,
}

impl Topology {
    /// The topic of an arm, by the arm's name.
    #[must_use]
    pub fn arm(&self, name: &str) -> Option<&Topic> {
        self.topics.get(&format!("arm.{name}"))
    }

    /// The lane's share of a topic's cap on what runs of one tenant; 0: there is no cap. The shares add up to it.
    #[must_use]
    pub fn cap_in(&self, topic: &Topic, lane: &str) -> u64 {
        let Some(cap) = topic.max_running_per_tenant else {
            return 0;
        };
        let lanes = self.lanes.len() as u64;
        let index = self.lanes.iter().take_while(|one| *one != lane).count() as u64;
        cap / lanes + u64::from(index < cap % lanes)
    }

    /// The lane of a tenant's idempotency key (the task's ULID where there is none).
    #[must_use]
    pub fn lane_for(&self, tenant: &str, key: &str) -> &str {
        &self.lanes[lane_index(tenant, key, self.lanes.len())]
    }
}

/// Reads and checks the file; `schemas` is the folder of `<event>.v<N>.schema.json`.
pub fn load(path: &Path, schemas: &Path) -> Result<Topology, TopologyError> {
    let text = std::fs::read_to_string(path).map_err(|error| TopologyError {
        path: path.to_owned(),
        message: format!("cannot be read ({error}); set OCTOLLM_TOPOLOGY_FILE to a topology file"),
    })?;
    parse(&text, schemas).map_err(|message| TopologyError {
        path: path.to_owned(),
        message,
    })
}

/// `load` without reading the file itself.
pub fn parse(text: &str, schemas: &Path) -> Result<Topology, String> {
    let one_group =
        |place: &str| (place.rsplit('.').next() == Some("group")).then_some(checks::ONE_GROUP);
    let file: File = yaml::read(text, "version: 1", one_group)?;
    if file.version != 1 {
        return Err(format!(
            "version: is {}, this program reads version 1",
            file.version
        ));
    }
    let mut topics = file.topics;
    for (name, topic) in &mut topics {
        topic.name.clone_from(name);
    }
    let topology = Topology {
        lanes: file.lanes,
        priorities: file.priorities,
        ingest: file.ingest,
        topics,
        live: file.live,
    };
    checks::check(&topology, schemas)?;
    Ok(topology)
}
