//! The reflex: vets every submission, from HTTP or from an ingest stream, by one admission.
//!
//! A submission's way: `http` or `ingest` (the two doors) → `admission` (decides, pure) → `sink` (stores). `reads`
//! answers what became of it. `store` owns the way to Redis; only it, `sink`, `reads` and `ingest::stream` speak Redis.

pub mod admission;
pub mod cli;
pub mod healthcheck;
pub mod http;
pub mod ingest;
pub mod logs;
pub mod metrics;
pub mod pauses;
pub mod reads;
pub mod sink;
pub mod store;
pub mod trace;
