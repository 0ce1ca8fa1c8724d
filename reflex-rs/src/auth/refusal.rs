//! Why a request is refused because of its credential.

use crate::caller::Scope;

/// The reasons. A key that is wrong, unknown, revoked or altered is always `Invalid`, so that nothing can be learnt by guessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request has no credential")]
    Missing,
    #[error("the credential is not valid")]
    Invalid,
    /// The credential was valid until its expiry.
    #[error("the credential has expired")]
    Expired,
    #[error("the credential does not have the scope {}", .0.as_str())]
    InsufficientScope(Scope),
    /// Nobody can say now whether the credential is valid.
    #[error("credentials cannot be checked now")]
    Unavailable,
}
