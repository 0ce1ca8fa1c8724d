//! Who a request or a stream entry acts for.

mod credential;
mod scopes;

pub(crate) use credential::is_base32;
pub use credential::{Credential, KeyId, Token};
pub use scopes::{Scope, Scopes};

use contracts::events::Tenant;

/// The tenant of callers without a credential.
pub const ANONYMOUS_TENANT: &str = "default";

/// The identity that a submission, a read or a command belongs to.
///
/// HTTP requests get theirs from their credential (`crate::auth`), webhooks from their source, ingest entries from their
/// stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub tenant: Tenant,
    pub scopes: Scopes,
    pub credential: Credential,
}

impl Caller {
    /// A caller without a credential: anonymous, or vouched for by a webhook's signature or by access to Redis.
    #[must_use]
    pub fn new(tenant: Tenant) -> Self {
        Self {
            tenant,
            scopes: Scopes::ALL,
            credential: Credential::None,
        }
    }

    /// Whether `tenant` is the caller's own; what belongs to another tenant does not exist for the caller.
    #[must_use]
    pub fn owns(&self, tenant: &Tenant) -> bool {
        self.tenant == *tenant
    }
}
