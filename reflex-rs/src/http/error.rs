//! Everything that a request can fail with, and the one table from there to a response.
//!
//! The table is what the client sees. What is logged is decided where the failure is handled.

use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use contracts::ContractError;
use serde_json::Value;

use super::problem_document::Row;
use super::problem_rows::{contract, credential, internal, quota, signature, store, submit};
use crate::auth::Refusal;
use crate::lookup::LookupError;
use crate::outcome::Outcome;
use crate::quotas::{Exceeded, QuotaError};
use crate::store::{StatusError, StoreError};
use crate::submit::{FinalOutcome, SubmitError};
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

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.row().into_response()
    }
}
