//! What both Rust programs need as processes: logging, supervised tasks, shutdown, admin endpoints, console output.
//!
//! Knows nothing about Redis or tasks. The lints forbid to spawn or to print anywhere else.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // this crate is where they are wrapped

pub mod admin;
pub mod console;
mod json_lines;
pub mod logging;
pub mod shutdown;
pub mod supervisor;

pub use shutdown::{Signals, Stop};
pub use supervisor::{Failure, Supervisor};
