//! The ingest door: producers XADD to `ingest:<tenant>`, and every entry ends as a task, a refusal or a dead letter.
//!
//! An entry's way: `consumer` (reads it, a slot and a lease for it) → `judge` (what becomes of it,
//! pure) → `door` (stores that, however long it takes, and only then removes the entry).

mod consumer;
mod door;
mod judge;

pub use consumer::Consumer;

use std::sync::Arc;

use bus::Leases;
use contracts::events::Tenant;
use contracts::topology::Topology;

use crate::admission::Rules;
use crate::metrics::Metrics;
use crate::sink::Sink;

/// What all consumers of this process share.
pub struct Common {
    pub sink: Arc<Sink>,
    pub rules: Arc<Rules>,
    pub topology: Arc<Topology>,
    pub metrics: Arc<Metrics>,
    /// This process's name in the consumer groups.
    pub name: String,
    pub leases: Arc<Leases>,
    pub body_limit: usize,
    pub drain: std::time::Duration,
}

/// Each tenant's stream has its own slots, so that one tenant's flood cannot take another's.
#[must_use]
pub fn slots_of_each(topology: &Topology) -> u32 {
    let tenants = u32::try_from(topology.ingest.tenants.len()).unwrap_or(u32::MAX);
    (topology.ingest.concurrency / tenants.max(1)).max(1)
}

/// The tenants that have an ingest stream.
pub fn tenants(topology: &Topology) -> Result<Vec<Tenant>, contracts::ContractError> {
    topology
        .ingest
        .tenants
        .iter()
        .map(|tenant| tenant.parse())
        .collect()
}
