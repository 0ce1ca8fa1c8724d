//! Ingest streams: producers XADD to `ingest:<tenant>`, and every entry becomes a task, a rejected task or a dead letter.
//!
//! An entry's way: `stream` (reads it from Redis) → `consumer` (a slot and a lease for it) → `handler` (takes it through
//! `decision` and the submission service, however long the store is unavailable, and only then removes it).

mod consumer;
mod decision;
mod fields;
mod handler;
mod held;
mod stream;

pub use consumer::{consume, Consumer};

use std::sync::Arc;

use contracts::events::Tenant;
use contracts::topology::Topology;

use crate::metrics::Metrics;
use crate::submit::Service;
use bus::RedisClient;

/// What all consumers of this process share.
pub struct Common {
    pub service: Service,
    pub redis: RedisClient,
    pub metrics: Arc<Metrics>,
    /// This process's name in the consumer groups.
    pub name: String,
    pub body_limit: usize,
    pub drain: std::time::Duration,
}

/// An entry as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    /// How often it was delivered, this time included.
    pub delivery: u64,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Each tenant's stream has its own slots, so that one tenant's flood cannot take another's.
#[must_use]
pub fn slots_of_each(topology: &Topology) -> usize {
    let tenants = topology.ingest.tenants.len().max(1);
    (topology.ingest.concurrency as usize / tenants).max(1)
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
