//! What both Rust programs know about Redis: the connection, the hand-off scripts, consumer groups and leases.
//!
//! Speaks the hand-off protocol of the scripts in `lua/`. Must not know what a message means or decide what becomes of
//! it.

pub mod backoff;
pub mod call;
pub mod client;
pub mod consumer_name;
pub mod error;
pub mod script;

pub use backoff::Backoff;
pub use call::ScriptCall;
pub use client::{RedisClient, ServerInfo};
pub use consumer_name::consumer_name;
pub use error::StoreError;
pub use script::Script;
