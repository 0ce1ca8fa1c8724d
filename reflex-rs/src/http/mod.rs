//! Routes and the one table from error to status. Never touches Redis itself.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use contracts::events::{Source, TaskId, Tenant};
use contracts::topology::Topology;
use contracts::{ids, ContractError, Reason};
use redis::aio::ConnectionManager;
use serde_json::json;

use crate::admission::{self, Arrival, Rules};
use crate::{reads, sink};

/// What every request needs.
#[derive(Clone)]
pub struct App {
    pub redis: ConnectionManager,
    pub rules: Arc<Rules>,
    pub topology: Arc<Topology>,
    pub tenant: Tenant,
    pub ttl_s: u64,
    pub body_limit: usize,
}

/// Everything a request can fail with; `parts` is the status table.
#[derive(Debug)]
pub enum Problem {
    TooLarge,
    MediaType,
    Contract(ContractError),
    Refused(String),
    Key,
    Conflict(String),
    Busy,
    Redis,
    Random,
    NotFound,
    Method,
}

impl Problem {
    fn parts(self) -> (StatusCode, &'static str, String, Option<String>) {
        use StatusCode as S;
        match self {
            Self::TooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "too_large",
                "the body is over the limit".into(),
                None,
            ),
            Self::MediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "media_type",
                "send Content-Type: application/json".into(),
                None,
            ),
            Self::Contract(error) if error.reason == Reason::Unreadable => (
                S::BAD_REQUEST,
                "unreadable",
                error.message,
                Some("body".into()),
            ),
            Self::Contract(error) => {
                let field = if error.field.is_empty() {
                    "body".into()
                } else {
                    error.field
                };
                (
                    S::UNPROCESSABLE_ENTITY,
                    "schema",
                    error.message,
                    Some(field),
                )
            }
            Self::Refused(detail) => (S::UNPROCESSABLE_ENTITY, "injection", detail, None),
            Self::Key => (
                S::BAD_REQUEST,
                "idempotency_key",
                "Idempotency-Key must be 1 to 255 visible ASCII characters".into(),
                Some("Idempotency-Key".into()),
            ),
            Self::Conflict(task) => (
                S::CONFLICT,
                "conflict",
                format!("this Idempotency-Key belongs to task {task} with another body"),
                None,
            ),
            Self::Busy => (
                S::SERVICE_UNAVAILABLE,
                "busy",
                "too many tasks are waiting; try again later".into(),
                None,
            ),
            Self::Redis => (
                S::SERVICE_UNAVAILABLE,
                "redis",
                "the task store cannot be reached; try again later".into(),
                None,
            ),
            Self::Random => (
                S::INTERNAL_SERVER_ERROR,
                "random",
                "no random numbers from the system".into(),
                None,
            ),
            Self::NotFound => (
                S::NOT_FOUND,
                "not_found",
                "there is nothing here".into(),
                None,
            ),
            Self::Method => (
                S::METHOD_NOT_ALLOWED,
                "method",
                "this address does not take that method".into(),
                None,
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, detail, field) = self.parts();
        let mut body = json!({"type": format!("urn:octollm:problem:{code}"), "title": status.canonical_reason(),
            "status": status.as_u16(), "detail": detail});
        if let Some(field) = field {
            body["field"] = field.into();
        }
        let mut response = (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body.to_string(),
        )
            .into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// All routes.
pub fn router(app: App) -> Router {
    let limit = app.body_limit;
    Router::new()
        .route("/v1/tasks", post(submit))
        .route("/v1/tasks/{id}", get(show))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { Problem::NotFound })
        .method_not_allowed_fallback(|| async { Problem::Method })
        .layer(DefaultBodyLimit::max(limit))
        .with_state(app)
}

async fn submit(
    State(mut app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    if !kind
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        return Err(Problem::MediaType);
    }
    let body = body.map_err(|_| Problem::TooLarge)?;
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(value) => {
            let text = value.to_str().map_err(|_| Problem::Key)?;
            let valid =
                (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            Some(if valid {
                text
            } else {
                return Err(Problem::Key);
            })
        }
    };
    let random = ids::random().map_err(|_| Problem::Random)?;
    let traceparent = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let traceparent = if is_traceparent(traceparent) {
        traceparent.to_owned()
    } else {
        fresh_traceparent()?
    };
    let arrival = Arrival {
        body: &body,
        tenant: &app.tenant,
        tenant_mismatch: false,
        source: Source::Http,
        key,
        traceparent: &traceparent,
        now_ms: ids::now_ms(),
        random,
    };
    let admitted =
        admission::admit(&arrival, &app.rules, &app.topology).map_err(Problem::Contract)?;
    if let Some(refusal) = admitted.refusal {
        return Err(Problem::Refused(refusal.detail));
    }
    let stored = sink::admit(&mut app.redis, &app.topology, app.ttl_s, &admitted)
        .await
        .map_err(|_| Problem::Redis)?;
    let (task, duplicate) = match stored {
        sink::Stored::Accepted(task) => (task, false),
        sink::Stored::Duplicate(task) => (task, true),
        sink::Stored::Conflict(task) => return Err(Problem::Conflict(task)),
        sink::Stored::Busy => return Err(Problem::Busy),
    };
    let url = format!("/v1/tasks/{task}");
    let answer = json!({"task": task, "tenant": app.tenant.as_str(), "state": "accepted", "durability": "redis",
        "duplicate": duplicate, "status_url": url});
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, url)],
        Json(answer),
    )
        .into_response())
}

async fn show(State(mut app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let task: TaskId = id.parse().map_err(|_| Problem::NotFound)?;
    let status = reads::status(&mut app.redis, &task)
        .await
        .map_err(|_| Problem::Redis)?;
    let status = status
        .filter(|status| status["tenant"] == app.tenant.as_str())
        .ok_or(Problem::NotFound)?;
    Ok(Json(status).into_response())
}

fn is_traceparent(text: &str) -> bool {
    let shape = |part: &str, length| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else {
        return false;
    };
    version == "00"
        && shape(trace, 32)
        && shape(span, 16)
        && shape(flags, 2)
        && trace.bytes().any(|b| b != b'0')
        && span.bytes().any(|b| b != b'0')
}

fn fresh_traceparent() -> Result<String, Problem> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(|_| Problem::Random)?;
    let noise = ids::sha256_hex(&seed);
    Ok(format!("00-{}-{}-01", &noise[..32], &noise[32..48]))
}
