//! The parts of a request that handlers need.

mod body;
mod caller;
mod encoding;
mod headers;
mod task_id;

pub(super) use body::{bytes, json_bytes, media_type, optional_object};
pub(super) use caller::{Authorized, Cancel, Operate, Read, Submit};
pub(super) use encoding::require_identity;
pub(super) use headers::{durability, idempotency_key, single_header, traceparent};
pub(super) use task_id::task_id;
