//! The ingest door: producers XADD to `ingest:<tenant>`, and every entry ends as a task, a refusal or a dead letter.
//!
//! An entry's way: `stream` (reads it from Redis) → `consumer` (a slot and a lease for it) → `judge` (what becomes of it,
//! pure) → `door` (stores that, however long it takes, and only then removes the entry).

mod consumer;
mod door;
mod held;
mod judge;
mod stream;

pub use consumer::{consume, Consumer};

use std::sync::Arc;

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
