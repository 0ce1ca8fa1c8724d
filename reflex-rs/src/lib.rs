//! The reflex: vets every submission, from HTTP, a webhook or an ingest stream, by one admission.
//!
//! A submission's way: `http` or `ingest` (the doors; a webhook becomes a submission in `webhooks`) → `admission` (decides,
//! pure) → `sink` (stores). `reads` answers what became of it, live as well; what Redis has forgotten, `api` knows. `store`
//! owns the way to Redis; only it, `sink`, `reads` and `ingest::stream` speak Redis.

pub mod admission;
pub mod api;
pub mod cli;
pub mod durability;
pub mod healthcheck;
pub mod http;
pub mod ingest;
pub mod metrics;
pub mod reads;
pub mod sink;
pub mod trace;
pub mod webhooks;
