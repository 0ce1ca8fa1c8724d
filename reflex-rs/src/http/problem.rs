//! Everything a request can fail with, and the one table from there to a status. What the caller sees is here; what is
//! logged is where the failure is handled.

use axum::http::{header, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use contracts::{ContractError, Reason};
use serde_json::json;

use crate::admission::signatures::Unproven;
use crate::api::ApiError;
use crate::durability::Durability;
use crate::metrics::Outcome;
use crate::reads::ReadError;
use bus::StoreError;

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
    /// The header that asks for a durability names none.
    Durability,
    /// Nothing was taken, for it could not be made as durable as it has to be; the text says why.
    NotDurable(&'static str),
    /// Taken, but not known in time to be as durable as it has to be.
    Unconfirmed {
        task: String,
        needed: Durability,
        seconds: u64,
    },
    /// No webhook source of that name.
    Source,
    /// A webhook source without a secret; the text says where one is missed.
    Closed(String),
    Unproven(Unproven),
    /// A header that the source's scheme needs is missing or unfit.
    Header(&'static str),
    /// Neither `Last-Event-ID` nor `after` says where to go on.
    Position,
    /// Too many live views are open.
    Streams,
    Api(ApiError),
    /// It would have to come from the API, and none is configured.
    NoApi,
    /// The cause is for the log; callers learn no more than what they can do.
    Store(StoreError),
    /// A fault of ours; the cause is for the log.
    Internal(String),
    NotFound,
    Method,
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(trouble) => Self::Store(trouble),
            ReadError::Contract(error) => Self::Internal(error.to_string()),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(trouble: StoreError) -> Self {
        Self::Store(trouble)
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// One line of the table.
struct Line {
    status: StatusCode,
    detail: String,
    field: Option<String>,
    /// The task that it is about.
    task: Option<String>,
}

fn line(status: StatusCode, detail: impl Into<String>) -> Line {
    Line {
        status,
        detail: detail.into(),
        field: None,
        task: None,
    }
}

impl Line {
    fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn about(mut self, task: String) -> Self {
        self.task = Some(task);
        self
    }
}

impl Problem {
    /// How a request with this problem ended.
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
            Self::Durability => Outcome::Durability,
            Self::NotDurable(_) => Outcome::NotDurable,
            Self::Unconfirmed { .. } => Outcome::Unconfirmed,
            Self::Source => Outcome::Source,
            Self::Closed(_) => Outcome::Closed,
            Self::Unproven(_) => Outcome::Signature,
            Self::Header(_) => Outcome::Header,
            Self::Position => Outcome::Position,
            Self::Streams | Self::Api(ApiError::Crowded) => Outcome::Crowded,
            Self::Api(ApiError::Away(_)) => Outcome::Api,
            Self::NoApi => Outcome::NoApi,
            Self::Store(StoreError::Unavailable { .. } | StoreError::Unknown(_)) => Outcome::Redis,
            Self::Store(StoreError::OutOfMemory(_)) => Outcome::Full,
            Self::Store(StoreError::Refused(_)) | Self::Internal(_) => Outcome::Internal,
            Self::NotFound => Outcome::NotFound,
            Self::Method => Outcome::Method,
        }
    }

    /// Why, for the log, where it is our side's fault.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::Store(trouble) => Some(trouble.to_string()),
            Self::Api(error) => Some(error.to_string()),
            Self::Internal(cause) => Some(cause.clone()),
            _ => None,
        }
    }

    /// The task that may be there nevertheless.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::Unconfirmed { task, .. } => Some(task),
            _ => None,
        }
    }

    fn line(self) -> Line {
        use StatusCode as S;
        match self {
            Self::TooLarge(limit) => {
                let detail = format!("the body has more than {limit} bytes; send less");
                line(S::PAYLOAD_TOO_LARGE, detail)
            }
            Self::Slow(seconds) => {
                let detail = format!("the body did not come within {seconds} s");
                line(S::REQUEST_TIMEOUT, detail)
            }
            Self::Broken => line(S::BAD_REQUEST, "the body could not be read to its end"),
            Self::MediaType => line(
                S::UNSUPPORTED_MEDIA_TYPE,
                "send Content-Type: application/json",
            )
            .at("Content-Type"),
            Self::Contract(error) => contract(error),
            Self::Refused(detail) => line(S::UNPROCESSABLE_ENTITY, detail),
            Self::Key => {
                let detail = "send one Idempotency-Key of 1 to 255 visible ASCII characters";
                line(S::BAD_REQUEST, detail).at("Idempotency-Key")
            }
            Self::Conflict(task) => {
                let detail =
                    format!("this Idempotency-Key belongs to task {task} with another body");
                line(S::CONFLICT, detail).at("Idempotency-Key")
            }
            Self::Busy => line(
                S::SERVICE_UNAVAILABLE,
                "too many tasks are waiting; try again later",
            ),
            Self::Durability => {
                let detail = "send one of redis, fsync, replicated, replicated(n) with n from 1 to 16, or stored; \
                              it asks for more than the deployment promises, never for less";
                line(S::BAD_REQUEST, detail).at("OctoLLM-Durability")
            }
            Self::NotDurable(why) => {
                let detail = format!("nothing was taken: {why}; try again later");
                line(S::SERVICE_UNAVAILABLE, detail)
            }
            Self::Unconfirmed {
                task,
                needed,
                seconds,
            } => {
                let detail = format!(
                    "task {task} may have been taken, but was not known to be {needed} within {seconds} s; send it again \
                     with the same Idempotency-Key, which is safe and gives the same task; if it had none, ask for \
                     /v1/tasks/{task} first"
                );
                line(S::SERVICE_UNAVAILABLE, detail).about(task)
            }
            Self::Source => line(S::NOT_FOUND, "webhooks.yaml names no source like that"),
            Self::Closed(missed) => {
                let detail = format!("this webhook source has no secret; put one into {missed} and restart the reflex");
                line(S::SERVICE_UNAVAILABLE, detail)
            }
            Self::Unproven(why) => line(S::UNAUTHORIZED, why.to_string()),
            Self::Header(name) => {
                let detail = format!("send one {name} of 1 to 180 visible ASCII characters");
                line(S::BAD_REQUEST, detail).at(name)
            }
            Self::Position => {
                let detail = "must be the id of an event, <run>-<seq>, like 1-4";
                line(S::BAD_REQUEST, detail).at("Last-Event-ID")
            }
            Self::Streams => line(
                S::SERVICE_UNAVAILABLE,
                "too many live views are open; try again later",
            ),
            Self::Api(ApiError::Crowded) => line(
                S::SERVICE_UNAVAILABLE,
                "too many reads wait for the API; try again later",
            ),
            Self::Api(ApiError::Away(_)) => line(
                S::SERVICE_UNAVAILABLE,
                "the API cannot be reached; try again later",
            ),
            Self::NoApi => {
                let detail = "only the API knows this, and none is configured; run `octollm api` and set OCTOLLM_API_URL";
                line(S::NOT_FOUND, detail)
            }
            Self::Store(StoreError::Unavailable { .. } | StoreError::Unknown(_)) => line(
                S::SERVICE_UNAVAILABLE,
                "the task store cannot be reached; try again later",
            ),
            Self::Store(StoreError::OutOfMemory(_)) => line(
                S::SERVICE_UNAVAILABLE,
                "the task store is full; try again later",
            ),
            Self::Store(StoreError::Refused(_)) | Self::Internal(_) => {
                let detail = "something is wrong on this side; the log of octollm-reflex says what";
                line(S::INTERNAL_SERVER_ERROR, detail)
            }
            Self::NotFound => line(S::NOT_FOUND, "there is nothing here"),
            Self::Method => line(
                S::METHOD_NOT_ALLOWED,
                "this address does not take that method",
            ),
        }
    }
}

fn contract(error: ContractError) -> Line {
    let status = match error.reason {
        Reason::Unreadable => StatusCode::BAD_REQUEST,
        Reason::Schema => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let field = if error.field.is_empty() {
        "body".into()
    } else {
        error.field
    };
    line(status, error.message).at(field)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.outcome().as_str();
        let Line {
            status,
            detail,
            field,
            task,
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
        if let Some(task) = task {
            body["task"] = task.into();
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
