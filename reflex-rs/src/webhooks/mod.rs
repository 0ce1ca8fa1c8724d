//! The webhook sources of this process: their secrets, signature schemes and mappings to submissions.
//!
//! A delivery's way: `http::routes::webhooks` → `signatures` (verifies the raw bytes) → `mapping` (builds the submission) →
//! the submission service. Secrets are read once, at start; no message contains them.

mod mapping;
mod secrets;
pub mod signatures;

pub use mapping::{submission, Mapped, Unmapped};
pub use secrets::{SecretError, Secrets};

use contracts::webhooks::{Mapping, Sources};
use indexmap::IndexMap;

use self::signatures::{verifier, Verifier};
use crate::caller::Caller;

/// One source, ready to verify and map deliveries.
pub struct Source {
    /// Whose tasks its deliveries become.
    pub caller: Caller,
    pub verifier: &'static dyn Verifier,
    pub secrets: Secrets,
    pub events: IndexMap<String, Mapping>,
}

/// Prepares every source and reads its secrets; `variable` looks up an environment variable.
///
/// Fails if a secret exists and cannot be used.
pub fn prepare(
    sources: Sources,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<IndexMap<String, Source>, SecretError> {
    sources
        .into_iter()
        .map(|(name, source)| {
            let verifier = verifier(source.scheme);
            let secrets = secrets::read(&name, &source.secrets, verifier, &variable)?;
            let prepared = Source {
                caller: Caller::new(source.tenant),
                verifier,
                secrets,
                events: source.events,
            };
            Ok((name, prepared))
        })
        .collect()
}
