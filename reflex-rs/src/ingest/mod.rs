//! Ingest streams: producers XADD to `ingest:<tenant>`, and every entry becomes a task, a rejected task or a dead letter.
//!
//! An entry's way: `consumer` (reads it and gives it a slot and a lease) → `handler` (takes it through `decision` and the
//! submission service, however long the store is unavailable) → `remover` (only then removes it).

mod consumer;
mod decision;
mod fields;
mod handler;
mod health;
mod remover;

pub use consumer::Consumer;
pub use health::IngestHealth;

use std::sync::Arc;

use contracts::events::Tenant;
use contracts::topology::Topology;

use crate::metrics::Metrics;
use crate::submit::Service;
use bus::{Leases, RedisClient};

/// What all consumers of this process share.
pub struct Common {
    pub service: Arc<Service>,
    pub redis: RedisClient,
    pub metrics: Arc<Metrics>,
    /// This process's name in the consumer groups.
    pub name: String,
    pub leases: Arc<Leases>,
    pub health: Arc<IngestHealth>,
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
