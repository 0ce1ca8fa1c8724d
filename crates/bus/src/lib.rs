//! What both Rust programs know about Redis: the connection, the hand-off scripts, consumer groups and leases.
//!
//! Speaks the hand-off protocol of the scripts in `lua/`. Must not know what a message means or decide what becomes of
//! it.

pub mod backoff;
pub mod call;
pub mod client;
pub mod clock;
mod complete_call;
pub mod completion;
mod connector;
pub mod consumer_name;
pub mod control;
pub mod dead_consumers;
pub mod entry;
pub mod error;
pub mod group;
pub mod lease;
pub mod reader;
pub mod run_state;
pub mod script;
pub mod server_info;

pub use backoff::{random_part, Backoff};
pub use call::ScriptCall;
pub use client::RedisClient;
pub use clock::RedisClock;
pub use completion::{Completion, Operation};
pub use consumer_name::consumer_name;
pub use control::Control;
pub use dead_consumers::DeadConsumers;
pub use entry::{Entry, StepRun};
pub use error::{Refusal, StoreError};
pub use group::{ClaimLimits, Claimed, ConsumerGroup};
pub use lease::{Lease, LeaseState, Leases};
pub use reader::Reader;
pub use script::Script;
pub use server_info::ServerInfo;
