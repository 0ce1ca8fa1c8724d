//! The rows of the table of problems that have several forms: what other modules fail with.

use axum::http::StatusCode;
use contracts::{ContractError, Reason};

use super::problem_document::Row;
use crate::auth::Refusal;
use crate::outcome::Outcome;
use crate::quotas::Exceeded;
use crate::store::StoreError;
use crate::submit::{store_outcome, SubmitError};
use crate::webhooks::signatures::SignatureError;

pub(super) fn signature(error: &SignatureError) -> Row<'_> {
    let row = Row::new(
        StatusCode::UNAUTHORIZED,
        Outcome::InvalidSignature,
        error.to_string(),
    );
    match error {
        SignatureError::Malformed { header } => row.field(header),
        SignatureError::Mismatch | SignatureError::Expired { .. } => row,
    }
}

pub(super) fn contract(error: &ContractError) -> Row<'_> {
    let (status, outcome) = match error.reason {
        Reason::Malformed => (StatusCode::BAD_REQUEST, Outcome::Malformed),
        Reason::Schema => (StatusCode::UNPROCESSABLE_ENTITY, Outcome::Schema),
    };
    let field = match error.field.as_str() {
        "" => "body",
        field => field,
    };
    Row::new(status, outcome, error.message.as_str()).field(field)
}

pub(super) fn quota(exceeded: &Exceeded) -> Row<'_> {
    let (owner, limit) = (exceeded.owner.as_str(), exceeded.limit.as_str());
    let wait = exceeded.retry_after_s();
    Row::new(
        StatusCode::TOO_MANY_REQUESTS,
        Outcome::QuotaExceeded,
        format!("the {owner} has used up its quota of {limit}; try again in {wait} s or ask the operator for more"),
    )
    .retry_after(wait)
    .rate_limit(&exceeded.fields)
    .violated_policy(exceeded.policy_name())
}

pub(super) fn submit(error: &SubmitError) -> Row<'_> {
    use StatusCode as S;
    let outcome = error.outcome();
    match error {
        SubmitError::Contract(error) => contract(error),
        SubmitError::Store(error) => store(error),
        SubmitError::Internal(_) => internal(),
        SubmitError::Quota(exceeded) => quota(exceeded),
        SubmitError::Refused(refusal) => {
            Row::new(S::UNPROCESSABLE_ENTITY, outcome, refusal.detail.as_str())
                .errors(&refusal.violations)
        }
        SubmitError::IdempotencyKeyReused(task) => Row::new(
            S::UNPROCESSABLE_ENTITY,
            outcome,
            format!("this Idempotency-Key belongs to task {task}, which has another body; send a new key"),
        )
        .field("Idempotency-Key"),
        SubmitError::Overloaded => Row::new(
            S::SERVICE_UNAVAILABLE,
            outcome,
            "too many tasks are queued; try again later",
        )
        .retry_after(1),
        SubmitError::NotDurable(reason) => Row::new(
            S::SERVICE_UNAVAILABLE,
            outcome,
            format!("nothing was stored: {reason}; try again later"),
        )
        .retry_after(1),
        SubmitError::Unconfirmed { task, required } => Row::new(
            S::SERVICE_UNAVAILABLE,
            outcome,
            format!(
                "task {task} may be stored, but it was not confirmed in time that it is {required}; send it again with the \
                 same Idempotency-Key, which is safe and returns the same task; if it had none, check /v1/tasks/{task} first"
            ),
        )
        .task(task)
        .retry_after(1),
    }
}

pub(super) fn store(error: &StoreError) -> Row<'static> {
    let outcome = store_outcome(error);
    match error {
        StoreError::Unavailable { .. } => Row::new(
            StatusCode::SERVICE_UNAVAILABLE,
            outcome,
            "the task store is unavailable; try again later",
        )
        .retry_after(1),
        StoreError::Unknown(_) => Row::new(
            StatusCode::SERVICE_UNAVAILABLE,
            outcome,
            "the task store did not answer in time; it may have done what was asked, and repeating the request is safe",
        )
        .retry_after(1),
        StoreError::OutOfMemory(_) => Row::new(
            StatusCode::SERVICE_UNAVAILABLE,
            outcome,
            "the task store is full; try again later",
        )
        .retry_after(1),
        StoreError::Refused(_) => internal(),
    }
}

/// The challenges are those of RFC 6750.
pub(super) fn credential(refusal: Refusal) -> Row<'static> {
    use StatusCode as S;
    match refusal {
        Refusal::Missing => Row::new(
            S::UNAUTHORIZED,
            Outcome::MissingCredential,
            "send an API key or a token as Authorization: Bearer; `octollm keys create` creates a key",
        )
        .challenge("Bearer".to_owned()),
        Refusal::Invalid => Row::new(
            S::UNAUTHORIZED,
            Outcome::InvalidCredential,
            "the credential is not valid; send one API key or token as Authorization: Bearer, and see `octollm keys ls` for \
             the keys that were revoked",
        )
        .challenge("Bearer error=\"invalid_token\"".to_owned()),
        Refusal::Expired => Row::new(
            S::UNAUTHORIZED,
            Outcome::ExpiredCredential,
            "the credential has expired; send a newer one",
        )
        .challenge("Bearer error=\"invalid_token\", error_description=\"expired\"".to_owned()),
        Refusal::InsufficientScope(scope) => Row::new(
            S::FORBIDDEN,
            Outcome::InsufficientScope,
            format!("this needs a credential with the scope {}", scope.as_str()),
        )
        .challenge(format!(
            "Bearer error=\"insufficient_scope\", scope=\"{}\"",
            scope.as_str()
        )),
        Refusal::Unavailable => Row::new(
            S::SERVICE_UNAVAILABLE,
            Outcome::CredentialsUnavailable,
            "the credential cannot be checked now, so it is neither accepted nor refused; try again later",
        )
        .retry_after(1),
    }
    .field("Authorization")
}

pub(super) fn internal() -> Row<'static> {
    Row::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        Outcome::Internal,
        "the reflex failed; see the log of octollm-reflex",
    )
}
