//! The sources of webhooks as this process uses them: their secrets read, and each event turned into a submission.
//!
//! A delivery's way: `http::webhooks` → `admission::signatures` (raw bytes) → `mapping` (pure) → the same admission as
//! any other submission. Secrets are read once, at start; they appear in no message.

mod mapping;
mod secrets;

pub use mapping::{submission, Mapped, Unmapped};
pub use secrets::{Opened, SecretError};

use contracts::events::Tenant;
use contracts::webhooks::{Mapping, Sources};
use indexmap::IndexMap;

use crate::admission::signatures::{verifier, Verifier};

/// One source, ready to judge.
pub struct Source {
    pub tenant: Tenant,
    pub verifier: &'static dyn Verifier,
    pub secrets: Opened,
    pub events: IndexMap<String, Mapping>,
}

/// Reads every source's secrets; `variable` looks into the environment.
pub fn open(
    sources: Sources,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<IndexMap<String, Source>, SecretError> {
    sources
        .into_iter()
        .map(|(name, source)| {
            let verifier = verifier(source.scheme);
            let secrets = secrets::open(&name, &source.secrets, verifier, &variable)?;
            let opened = Source {
                tenant: source.tenant,
                verifier,
                secrets,
                events: source.events,
            };
            Ok((name, opened))
        })
        .collect()
}
