//! What every request shares.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use indexmap::IndexMap;
use service::Supervisor;
use tokio::sync::Semaphore;

use super::AllowedHosts;
use crate::auth::Authenticator;
use crate::ingest::IngestHealth;
use crate::metrics::Metrics;
use crate::submit::Service;
use crate::webhooks::Source;

/// The state of the HTTP API, shared behind one `Arc`.
pub struct App {
    pub service: Arc<Service>,
    pub metrics: Arc<Metrics>,
    /// Turns readiness red while an ingest stream cannot be read.
    pub ingest: Arc<IngestHealth>,
    /// The webhook sources, by name.
    pub sources: IndexMap<String, Source>,
    /// Says who a request acts for.
    pub authenticator: Arc<Authenticator>,
    /// One permit for each submission in progress.
    pub submission_slots: Semaphore,
    /// One permit for each event stream.
    pub event_slots: Arc<Semaphore>,
    /// Owns what outlives its request. Event streams have no end of their own and end when it orders to stop.
    pub supervisor: Supervisor,
    pub limits: Limits,
    pub hosts: AllowedHosts,
    /// The origins whose web pages may use the HTTP API.
    pub cors_origins: Vec<HeaderValue>,
}

/// What a request body must respect.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub body_bytes: usize,
    /// From the first byte to the last.
    pub body_timeout: Duration,
}
