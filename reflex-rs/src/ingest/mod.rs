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
use crate::store::Link;
use crate::submit::Service;

/// What all consumers of this process share.
pub struct Common {
    pub service: Service,
    pub redis: Link,
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

/// A consumer name that no other process has: host, process and a random part.
pub fn own_name(configured: &str) -> Result<String, getrandom::Error> {
    if !configured.is_empty() {
        return Ok(configured.to_owned());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .take(64)
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    let noise = getrandom::u32()?;
    Ok(format!("reflex-{host}-{}-{noise:08x}", std::process::id()))
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
