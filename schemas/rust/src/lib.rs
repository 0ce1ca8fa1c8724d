//! What every Rust program of `OctoLLM` agrees on with the Python side: events, identifiers, topology, key names,
//! the hand-off scripts and the settings.
//!
//! Owns the shapes and their rules. Must not do I/O beyond reading a named file, and must not know tokio, Redis or HTTP.

pub mod credentials;
pub mod error;
pub mod events;
pub mod fairness;
pub mod ids;
pub mod keys;
pub mod quotas;
pub mod settings;
pub mod strict_json;
pub mod topology;
pub mod webhooks;
mod yaml;

pub use error::{ContractError, Reason};
pub use events::{read, write};
