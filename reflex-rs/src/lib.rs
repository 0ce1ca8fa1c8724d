//! The reflex: vets every submission by one admission.
//!
//! `http` is the door, `admission` decides (pure), `sink` and `reads` are the only rooms with Redis commands.

pub mod admission;
pub mod http;
pub mod reads;
pub mod sink;
