//! Everything that a request can fail with, and the one table from there to a response.
//!
//! The table is what the client sees. What is logged is decided where the failure is handled.

use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use contracts::{ContractError, Reason};
use serde_json::Value;

use super::problem_document::Row;
use crate::auth::Refusal;
use crate::lookup::LookupError;
use crate::outcome::Outcome;
use crate::quotas::{Exceeded, QuotaError};
use crate::store::{StatusError, StoreError};
use crate::submit::{store_outcome, FinalOutcome, SubmitError};
use crate::upstream::ApiError;
use crate::webhooks::signatures::SignatureError;

/// Why a request fails.
#[derive(Debug)]
pub enum Problem {
    /// The body has more than this many bytes.
    TooLarge(usize),
    /// The body did not arrive within this many seconds.
    Timeout(u64),
    /// The body broke off, or its framing is invalid.
    IncompleteBody,
    /// The body is of another type than these, as the header `Accept` lists them.
    UnsupportedMediaType(&'static str),
    /// The body has an unknown content encoding, or several.
    UnsupportedEncoding,
    /// The body of a webhook has a content encoding.
    EncodedWebhook,
    /// The body or the query breaks its schema.
    Contract(ContractError),
    InvalidIdempotencyKey,
    InvalidDurability,
    Submit(SubmitError),
    /// The caller's quota does not allow it now.
    Quota(Box<Exceeded>),
    UnknownSource,
    /// The webhook source has no secret; the text names where one is expected.
    SourceNotConfigured(String),
    Signature(SignatureError),
    /// A header that the webhook scheme needs is missing or invalid.
    MissingHeader(String),
    InvalidLastEventId,
    TooManySubmissions,
    TooManyEventStreams,
    ApiNotConfigured,
    Api(ApiError),
    Store(StoreError),
    /// A fault of this program or of the stored data; the text is for the log.
    Internal(String),
    ForeignHost,
    Credential(Refusal),
    NotFound,
    MethodNotAllowed,
}

impl From<ContractError> for Problem {
    fn from(error: ContractError) -> Self {
        Self::Contract(error)
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Contract(error) => Self::Contract(error),
            SubmitError::Store(error) => Self::Store(error),
            SubmitError::Internal(cause) => Self::Internal(cause),
            SubmitError::Quota(exceeded) => Self::Quota(exceeded),
            error => Self::Submit(error),
        }
    }
}

impl From<QuotaError> for Problem {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Exceeded(exceeded) => Self::Quota(exceeded),
            QuotaError::Store(error) => Self::Store(error),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<StatusError> for Problem {
    fn from(error: StatusError) -> Self {
        LookupError::from(error).into()
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NotFound => Self::NotFound,
            LookupError::Store(error) => Self::Store(error),
            LookupError::Status(error) => Self::Internal(error.to_string()),
            LookupError::Api(error) => Self::Api(error),
        }
    }
}

impl From<getrandom::Error> for Problem {
    fn from(error: getrandom::Error) -> Self {
        Self::Internal(format!("the system has no random numbers: {error}"))
    }
}

impl Problem {
    /// The outcome of a request that fails with this problem.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.row().outcome
    }

    /// What was wrong and what to do, with the field that it is about.
    pub(super) fn detail(&self) -> String {
        let row = self.row();
        let field = row.field.map(|field| format!("{field}: "));
        format!("{}{}", field.unwrap_or_default(), row.detail)
    }

    /// Returns the problem document if the same request can succeed later without anyone changing it.
    pub(super) fn transient_document(&self) -> Option<Value> {
        let row = self.row();
        (row.status == StatusCode::SERVICE_UNAVAILABLE).then(|| row.document())
    }

    /// The status and the problem document, for an answer that has several.
    pub(super) fn document(&self) -> (StatusCode, Value) {
        let row = self.row();
        (row.status, row.document())
    }

    /// Why, for the log, if the fault is on this side.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::Store(error) => Some(error.to_string()),
            Self::Api(error) => Some(error.to_string()),
            Self::Internal(cause) => Some(cause.clone()),
            _ => None,
        }
    }

    /// How a submission ends that fails with this problem before it reaches the submission service.
    pub(super) fn final_outcome(&self) -> FinalOutcome<'_> {
        FinalOutcome {
            outcome: self.outcome(),
            task: None,
            cause: self.cause(),
        }
    }

    /// The table.
    #[allow(clippy::too_many_lines)] // one row for each problem
    fn row(&self) -> Row<'_> {
        use StatusCode as S;
        match self {
            Self::TooLarge(limit) => Row::new(
                S::PAYLOAD_TOO_LARGE,
                Outcome::TooLarge,
                format!("the body has more than {limit} bytes; send less"),
            ),
            Self::Timeout(seconds) => Row::new(
                S::REQUEST_TIMEOUT,
                Outcome::Timeout,
                format!("the body did not arrive within {seconds} s"),
            ),
            Self::IncompleteBody => Row::new(
                S::BAD_REQUEST,
                Outcome::IncompleteBody,
                "the body could not be read to its end",
            ),
            Self::UnsupportedMediaType(accepted) => Row::new(
                S::UNSUPPORTED_MEDIA_TYPE,
                Outcome::UnsupportedMediaType,
                format!("send Content-Type: {}", accepted.replace(", ", " or ")),
            )
            .field("Content-Type")
            .header(header::ACCEPT, accepted),
            Self::UnsupportedEncoding => Row::new(
                S::UNSUPPORTED_MEDIA_TYPE,
                Outcome::UnsupportedEncoding,
                "send the body as it is, or with one Content-Encoding: gzip or deflate",
            )
            .field("Content-Encoding")
            .header(header::ACCEPT_ENCODING, "gzip, deflate, identity"),
            Self::EncodedWebhook => Row::new(
                S::UNSUPPORTED_MEDIA_TYPE,
                Outcome::UnsupportedEncoding,
                "send the body of a webhook without Content-Encoding, as it was signed",
            )
            .field("Content-Encoding")
            .header(header::ACCEPT_ENCODING, "identity"),
            Self::Contract(error) => contract(error),
            Self::InvalidIdempotencyKey => Row::new(
                S::BAD_REQUEST,
                Outcome::InvalidIdempotencyKey,
                "send one Idempotency-Key of 1 to 255 visible ASCII characters",
            )
            .field("Idempotency-Key"),
            Self::InvalidDurability => Row::new(
                S::BAD_REQUEST,
                Outcome::InvalidDurability,
                "send one of redis, fsync, replicated, replicated(n) with n from 1 to 16, or stored; it can only require \
                 more than the deployment does, never less",
            )
            .field("OctoLLM-Durability"),
            Self::Submit(error) => submit(error),
            Self::Quota(exceeded) => quota(exceeded),
            Self::UnknownSource => Row::new(
                S::NOT_FOUND,
                Outcome::UnknownSource,
                "webhooks.yaml does not have a source of this name",
            ),
            Self::SourceNotConfigured(expected) => Row::new(
                S::SERVICE_UNAVAILABLE,
                Outcome::SourceNotConfigured,
                format!("this webhook source has no secret; set {expected} and restart the reflex"),
            )
            .retry_after(1),
            Self::Signature(error) => signature(error),
            Self::MissingHeader(name) => Row::new(
                S::BAD_REQUEST,
                Outcome::MissingHeader,
                format!("send one {name} of 1 to 180 visible ASCII characters"),
            )
            .field(name.as_str()),
            Self::InvalidLastEventId => Row::new(
                S::BAD_REQUEST,
                Outcome::InvalidLastEventId,
                "must be the id of an event, <run>-<seq>, like 1-4",
            )
            .field("Last-Event-ID"),
            Self::TooManySubmissions => Row::new(
                S::SERVICE_UNAVAILABLE,
                Outcome::Overloaded,
                "too many submissions are in progress; try again later",
            )
            .retry_after(1),
            Self::TooManyEventStreams => Row::new(
                S::SERVICE_UNAVAILABLE,
                Outcome::Overloaded,
                "too many event streams and waiting reads are open; try again later",
            )
            .retry_after(1),
            Self::ApiNotConfigured => Row::new(
                S::NOT_FOUND,
                Outcome::ApiNotConfigured,
                "only the API can answer this, and none is configured; run `octollm api` and set OCTOLLM_API_URL",
            ),
            Self::Api(ApiError::Overloaded) => Row::new(
                S::SERVICE_UNAVAILABLE,
                Outcome::Overloaded,
                "too many requests wait for the API; try again later",
            )
            .retry_after(1),
            Self::Api(ApiError::NoSecret) => Row::new(
                S::SERVICE_UNAVAILABLE,
                Outcome::ApiNotConfigured,
                "only the API can answer this, and the reflex cannot prove to it who asks; set the same OCTOLLM_API_SECRET for \
                 both and restart them",
            )
            .retry_after(1),
            Self::Api(ApiError::Refused(_)) => Row::new(
                S::SERVICE_UNAVAILABLE,
                Outcome::ApiNotConfigured,
                "the API does not accept the requests of the reflex; set the same OCTOLLM_API_SECRET for both and restart them",
            )
            .retry_after(1),
            Self::Api(ApiError::Unavailable(_)) => Row::new(
                S::SERVICE_UNAVAILABLE,
                Outcome::ApiUnavailable,
                "the API is unavailable; try again later",
            )
            .retry_after(1),
            Self::Store(error) => store(error),
            Self::Internal(_) => internal(),
            Self::ForeignHost => Row::new(
                S::FORBIDDEN,
                Outcome::ForeignHost,
                "without a credential, Host and Origin must be local or the host of OCTOLLM_REFLEX_URL, and the same where the \
                 reflex does not listen on a loopback address",
            )
            .field("Host"),
            Self::Credential(refusal) => credential(*refusal),
            Self::NotFound => Row::new(
                S::NOT_FOUND,
                Outcome::NotFound,
                "nothing exists at this address",
            ),
            Self::MethodNotAllowed => Row::new(
                S::METHOD_NOT_ALLOWED,
                Outcome::MethodNotAllowed,
                "this address does not support the method",
            ),
        }
    }
}

fn signature(error: &SignatureError) -> Row<'_> {
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

fn contract(error: &ContractError) -> Row<'_> {
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

fn quota(exceeded: &Exceeded) -> Row<'_> {
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

fn submit(error: &SubmitError) -> Row<'_> {
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

fn store(error: &StoreError) -> Row<'static> {
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
fn credential(refusal: Refusal) -> Row<'static> {
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

fn internal() -> Row<'static> {
    Row::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        Outcome::Internal,
        "the reflex failed; see the log of octollm-reflex",
    )
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.row().into_response()
    }
}
