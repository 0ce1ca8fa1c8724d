//! The reflex: takes submissions from HTTP, webhooks and ingest streams through one pipeline.
//!
//! A submission's way: `http` or `ingest` (a webhook's payload becomes a submission in `webhooks`) → `submit` (the stages:
//! `admission`, durability, store, record) → `store`. `lookup` finds tasks in the store or, through `upstream`, in the
//! API; `events` follows what happens to them. `auth` says who a request acts for. Only `store::redis`, `ingest` and
//! `auth::refresh` speak Redis.

pub mod admission;
pub mod auth;
mod blocking;
mod byte_order;
pub mod caller;
pub mod cli;
pub mod configuration;
pub mod events;
pub mod healthcheck;
pub mod http;
pub mod ingest;
pub mod kinds;
pub mod lookup;
pub mod metrics;
pub mod open_files;
pub mod outcome;
pub mod quotas;
pub mod request_id;
pub mod store;
pub mod submit;
pub mod trace;
pub mod upstream;
pub mod webhooks;
