//! The executor arm: runs Python and shell steps in a sandbox without network or secrets.
//!
//! `source` and `sink` speak the stream protocol, `policy` decides (pure), `worker` wires them, and `sandbox` is the
//! only room with processes and `unsafe`.

#![deny(unsafe_code)]

pub mod cli;
pub mod doctor;
pub mod policy;
#[allow(unsafe_code)] // namespaces, seccomp and the step's process are system calls; nowhere else
pub mod sandbox;
pub mod sink;
pub mod source;
pub mod worker;
