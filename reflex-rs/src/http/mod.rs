//! The HTTP API: a connection (`server`) → `router` → `middleware` → `extract` (the parts of a request) → `routes` (one file
//! per resource) → the submission service, the task store or the upstream API. Errors become responses in `error`.

mod client_slots;
mod connection;
mod cors;
mod error;
mod extract;
mod hosts;
mod middleware;
mod problem_document;
mod problem_rows;
mod router;
mod routes;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod tls;

pub use error::Problem;
pub use hosts::AllowedHosts;
pub use router::router;
pub use server::serve;
pub use state::{App, Limits};
pub use tls::{Certificate, CertificateError};
