//! The submission service: every submission, from HTTP, a webhook or an ingest stream, takes the same stages.
//!
//! | stage | file | decides |
//! |---|---|---|
//! | quotas | `crate::quotas` | whether the caller may submit this much now |
//! | admission | `crate::admission` | whether the body is a submission, whether the policy refuses it, and whether it can be planned |
//! | durability | `durability`, `confirm` | how durable the task must be before it is answered |
//! | store | `service`, `crate::store` | accepted, duplicate, conflict or overloaded |
//! | record | `record` | one outcome per submission: a metric and a log line |
//!
//! A new stage goes into `Service::prepare` if it needs no store, else into `Service::store`.

mod confirm;
mod detached;
mod durability;
mod error;
mod record;
mod service;

pub use durability::Durability;
pub use error::{store_outcome, SubmitError};
pub use record::{Context, FinalOutcome, Record};
pub use service::{Accepted, Prepared, Refusals, Requirements, Service, ServiceConfig};
