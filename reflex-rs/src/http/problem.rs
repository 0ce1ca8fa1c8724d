//! Everything a request can fail with, and the one table from there to a status. What the caller sees is here; what is
//! logged is where the failure is handled.

use axum::http::{header, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use contracts::{ContractError, Reason};
use serde_json::json;

use crate::metrics::Outcome;
use crate::store::Trouble;

/// A request's failure.
#[derive(Debug)]
pub enum Problem {
    TooLarge(usize),
    /// The body did not come within so many seconds.
    Slow(u64),
    /// The body broke off or was not framed as HTTP wants it.
    Broken,
    MediaType,
    Contract(ContractError),
    Refused(String),
    Key,
    Conflict(String),
    Busy,
    /// The cause is for the log; callers learn no more than what they can do.
    Store(Trouble),
    /// A fault of ours; the cause is for the log.
    Internal(String),
    NotFound,
    Method,
}

/// One line of the table.
struct Line {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
}

impl Problem {
    /// How a submission with this problem ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::TooLarge(_) => Outcome::TooLarge,
            Self::Slow(_) => Outcome::Timeout,
            Self::Broken => Outcome::Body,
            Self::MediaType => Outcome::MediaType,
            Self::Contract(error) if error.reason == Reason::Unreadable => Outcome::Unreadable,
            Self::Contract(_) => Outcome::Schema,
            Self::Refused(_) => Outcome::Injection,
            Self::Key => Outcome::IdempotencyKey,
            Self::Conflict(_) => Outcome::Conflict,
            Self::Busy => Outcome::Busy,
            Self::Store(Trouble::Away(_)) => Outcome::Redis,
            Self::Store(Trouble::Full(_)) => Outcome::Full,
            Self::Store(Trouble::Broken(_)) | Self::Internal(_) | Self::NotFound | Self::Method => {
                Outcome::Internal
            }
        }
    }

    /// Why, for the log, where it is our side's fault.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::Store(trouble) => Some(trouble.to_string()),
            Self::Internal(cause) => Some(cause.clone()),
            _ => None,
        }
    }

    fn line(self) -> Line {
        use StatusCode as S;
        let outcome = self.outcome();
        let (status, detail, field) = match self {
            Self::TooLarge(limit) => (
                S::PAYLOAD_TOO_LARGE,
                format!("the body has more than {limit} bytes; send less"),
                None,
            ),
            Self::Slow(seconds) => (
                S::REQUEST_TIMEOUT,
                format!("the body did not come within {seconds} s"),
                None,
            ),
            Self::Broken => (
                S::BAD_REQUEST,
                "the body could not be read to its end".into(),
                None,
            ),
            Self::MediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "send Content-Type: application/json".into(),
                Some("Content-Type".into()),
            ),
            Self::Contract(error) => {
                let status = match error.reason {
                    Reason::Unreadable => S::BAD_REQUEST,
                    Reason::Schema => S::UNPROCESSABLE_ENTITY,
                };
                let field = if error.field.is_empty() {
                    "body".into()
                } else {
                    error.field
                };
                (status, error.message, Some(field))
            }
            Self::Refused(detail) => (S::UNPROCESSABLE_ENTITY, detail, None),
            Self::Key => (
                S::BAD_REQUEST,
                "send one Idempotency-Key of 1 to 255 visible ASCII characters".into(),
                Some("Idempotency-Key".into()),
            ),
            Self::Conflict(task) => (
                S::CONFLICT,
                format!("this Idempotency-Key belongs to task {task} with another body"),
                Some("Idempotency-Key".into()),
            ),
            Self::Busy => (
                S::SERVICE_UNAVAILABLE,
                "too many tasks are waiting; try again later".into(),
                None,
            ),
            Self::Store(Trouble::Away(_)) => (
                S::SERVICE_UNAVAILABLE,
                "the task store cannot be reached; try again later".into(),
                None,
            ),
            Self::Store(Trouble::Full(_)) => (
                S::SERVICE_UNAVAILABLE,
                "the task store is full; try again later".into(),
                None,
            ),
            Self::Store(Trouble::Broken(_)) | Self::Internal(_) => (
                S::INTERNAL_SERVER_ERROR,
                "something is wrong on this side; the log of octollm-reflex says what".into(),
                None,
            ),
            Self::NotFound => {
                return Line {
                    status: S::NOT_FOUND,
                    code: "not_found",
                    detail: "there is nothing here".into(),
                    field: None,
                }
            }
            Self::Method => {
                return Line {
                    status: S::METHOD_NOT_ALLOWED,
                    code: "method",
                    detail: "this address does not take that method".into(),
                    field: None,
                }
            }
        };
        Line {
            status,
            code: outcome.as_str(),
            detail,
            field,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Line {
            status,
            code,
            detail,
            field,
        } = self.line();
        let mut body = json!({
            "type": format!("urn:octollm:problem:{code}"),
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
        });
        if let Some(field) = field {
            body["field"] = field.into();
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body.to_string()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
