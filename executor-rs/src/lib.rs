//! The executor arm: runs Python and shell steps in a sandbox without network or secrets.
//!
//! `job` is plain data. `sandbox` runs a job; it is the only module with processes and `unsafe`. `step` turns a message
//! into a job and its result into a report. `isolation` finds out what this machine gives. `worker` takes steps from
//! Redis and wires everything.

#![deny(unsafe_code)]

pub mod cli;
pub mod doctor;
pub mod isolation;
pub mod job;
#[allow(unsafe_code)] // namespaces, seccomp and the step's process are system calls; nowhere else
pub mod sandbox;
pub mod step;
pub mod worker;
