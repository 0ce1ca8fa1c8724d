//! The webhook sources of this process: their secrets, signature schemes and mappings to submissions.
//!
//! A delivery's way: `http::routes::webhooks` → `signatures` (verifies the raw bytes) → `payload` (parses them) → `mapping`
//! (builds the submission) → the submission service. Secrets are read once, at start; no message contains them.

mod mapping;
mod payload;
mod secrets;
pub mod signatures;

pub use mapping::{submission, Mapped, Unmapped};
pub use payload::MediaType;
pub use secrets::{SecretError, Secrets};

use contracts::webhooks::{EventLocation, Mapping, Sources};
use indexmap::IndexMap;

use self::signatures::{verifier, EventField, Verifier};
use crate::caller::Caller;

/// One source, ready to verify and map deliveries.
pub struct Source {
    /// Whose tasks its deliveries become.
    pub caller: Caller,
    pub verifier: Box<dyn Verifier>,
    pub secrets: Secrets,
    /// Where the event's name is, if not where the scheme puts it.
    event: Option<EventLocation>,
    pub events: IndexMap<String, Mapping>,
}

impl Source {
    /// Where the event's name can be; the first place that has one counts.
    #[must_use]
    pub fn event_fields(&self) -> Vec<EventField<'_>> {
        match &self.event {
            None => self.verifier.event().to_vec(),
            Some(EventLocation::Header(name)) => vec![EventField::Header(name.as_str())],
            Some(EventLocation::Pointer(pointer)) => vec![EventField::Body(pointer.as_str())],
            Some(EventLocation::Name(name)) => vec![EventField::Name(name)],
        }
    }
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
            let secrets = secrets::read(&name, &source.secrets, &*verifier, &variable)?;
            let prepared = Source {
                caller: Caller::new(source.tenant),
                verifier,
                secrets,
                event: source.event,
                events: source.events,
            };
            Ok((name, prepared))
        })
        .collect()
}
