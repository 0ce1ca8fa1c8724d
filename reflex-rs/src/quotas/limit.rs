//! The kinds of limits and how they are called in answers and metrics.

use std::time::Duration;

use strum::IntoStaticStr;

/// What is limited; the name of the limit in the file, in metrics and, with the owner, in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Limit {
    Requests,
    Reads,
    Bytes,
    /// Tasks that were accepted and have not ended.
    Tasks,
}

impl Limit {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Whose quota it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum OwnerKind {
    Tenant,
    Key,
}

impl OwnerKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A request that is above its caller's quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("above the quota of the {}: {}", owner.as_str(), limit.as_str())]
pub struct Exceeded {
    pub limit: Limit,
    pub owner: OwnerKind,
    /// The same request can succeed after this time.
    pub retry_after: Duration,
    pub fields: Fields,
}

impl Exceeded {
    /// `retry_after` in whole seconds, at least one.
    #[must_use]
    pub fn retry_after_s(&self) -> u64 {
        whole_seconds(self.retry_after)
    }

    /// The name of the limit in `fields`.
    #[must_use]
    pub fn policy_name(&self) -> String {
        policy_name(self.owner, self.limit)
    }
}

/// Whole seconds, at least one: nobody should come back at once.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0 || time.is_zero())
}

/// The name of a limit in the fields `RateLimit-Policy` and `RateLimit`.
pub(super) fn policy_name(owner: OwnerKind, limit: Limit) -> String {
    match owner {
        OwnerKind::Tenant => limit.as_str().to_owned(),
        OwnerKind::Key => format!("key-{}", limit.as_str()),
    }
}

/// The fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    pub policy: String,
    pub state: String,
}
