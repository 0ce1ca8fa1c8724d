//! Who a request or a stream entry acts for.

use contracts::events::Tenant;

/// The identity that a submission, a read or a command belongs to.
///
/// HTTP requests get theirs from an extractor, webhooks from their source, ingest entries from their stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub tenant: Tenant,
}

impl Caller {
    #[must_use]
    pub fn new(tenant: Tenant) -> Self {
        Self { tenant }
    }

    /// Whether `tenant` is the caller's own; what belongs to another tenant does not exist for the caller.
    #[must_use]
    pub fn owns(&self, tenant: &Tenant) -> bool {
        self.tenant == *tenant
    }
}
