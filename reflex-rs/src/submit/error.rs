//! Why a submission is not accepted.

use contracts::events::{RefusalReason, TaskId};
use contracts::{ContractError, Reason};

use super::Durability;
use crate::admission::Refusal;
use crate::outcome::Outcome;
use crate::quotas::{Exceeded, QuotaError};
use crate::store::StoreError;

/// A submission that did not become an accepted task.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The body is not a `task.submission.v1`.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// The policy refuses it, or it cannot be planned.
    #[error("{}", .0.detail)]
    Refused(Refusal),
    #[error("the idempotency key belongs to task {0} with another body")]
    IdempotencyKeyReused(TaskId),
    #[error("too many tasks are queued")]
    Overloaded,
    /// The caller's quota does not allow it now.
    #[error(transparent)]
    Quota(Box<Exceeded>),
    /// Nothing was stored; the text says what is missing.
    #[error("nothing was stored: {0}")]
    NotDurable(&'static str),
    /// Stored, and not known in time to be as durable as required.
    #[error("task {task} was not confirmed to be {required} in time")]
    Unconfirmed { task: TaskId, required: Durability },
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of this program; the text is for the log.
    #[error("{0}")]
    Internal(String),
}

impl SubmitError {
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Contract(error) if error.reason == Reason::Malformed => Outcome::Malformed,
            Self::Contract(_) => Outcome::Schema,
            Self::Refused(refusal) => refused_outcome(refusal.reason),
            Self::IdempotencyKeyReused(_) => Outcome::IdempotencyKeyReused,
            Self::Overloaded => Outcome::Overloaded,
            Self::Quota(_) => Outcome::QuotaExceeded,
            Self::NotDurable(_) => Outcome::NotDurable,
            Self::Unconfirmed { .. } => Outcome::Unconfirmed,
            Self::Store(error) => store_outcome(error),
            Self::Internal(_) => Outcome::Internal,
        }
    }
}

impl From<QuotaError> for SubmitError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Exceeded(exceeded) => Self::Quota(exceeded),
            QuotaError::Store(error) => Self::Store(error),
        }
    }
}

/// The outcome of a submission that is refused for this reason.
#[must_use]
pub fn refused_outcome(reason: RefusalReason) -> Outcome {
    match reason {
        RefusalReason::Injection | RefusalReason::TenantMismatch => Outcome::Injection,
        RefusalReason::Duplicate => Outcome::Duplicate,
        RefusalReason::NeedsModel => Outcome::NeedsModel,
        RefusalReason::UnknownKind => Outcome::UnknownKind,
        RefusalReason::InvalidInput => Outcome::InvalidInput,
    }
}

/// The outcome of a request that fails with this store error.
#[must_use]
pub fn store_outcome(error: &StoreError) -> Outcome {
    match error {
        StoreError::Unavailable { .. } | StoreError::Unknown(_) => Outcome::StoreUnavailable,
        StoreError::OutOfMemory(_) => Outcome::StoreFull,
        StoreError::Refused(_) => Outcome::Internal,
    }
}
