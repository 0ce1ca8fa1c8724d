//! `POST /v1/tasks` and `GET /v1/tasks/{id}`.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{Source, TaskId};
use contracts::ids;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;

use super::{App, Problem};
use crate::admission::{self, Arrival};
use crate::metrics::{Door, Outcome};
use crate::reads::{self, ReadError};
use crate::sink::Stored;
use crate::trace;

/// A submission that is stored.
struct Taken {
    task: String,
    duplicate: bool,
}

/// Takes a task, or says why not; counts and logs it, whatever comes of it.
pub(super) async fn submit(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let traceparent = trace::accept(text(&head.headers, "traceparent")).map_err(internal)?;
    let read = read_body(&app, &head.headers, body).await;
    let arrived = Instant::now();
    let taken = match read {
        Ok(body) => take(&app, &head.headers, &body, &traceparent).await,
        Err(problem) => Err(problem),
    };
    let outcome = match &taken {
        Ok(taken) if taken.duplicate => Outcome::Duplicate,
        Ok(_) => Outcome::Accepted,
        Err(problem) => problem.outcome(),
    };
    app.metrics.ended(Door::Http, outcome, arrived.elapsed());
    let (tenant, trace) = (app.tenant.as_str(), trace::id(&traceparent));
    let outcome = outcome.as_str();
    match &taken {
        Ok(taken) => {
            tracing::info!(
                task = taken.task,
                tenant,
                trace,
                outcome,
                "took a submission"
            );
        }
        // A Redis that is away or full is no news per request: `store` reports it once.
        Err(problem) => match problem.cause() {
            Some(cause) if problem.outcome() == Outcome::Internal => {
                tracing::error!(tenant, trace, outcome, cause, "could not take a submission");
            }
            _ => tracing::info!(tenant, trace, outcome, "refused a submission"),
        },
    }
    let Taken { task, duplicate } = taken?;
    let url = format!("/v1/tasks/{task}");
    let answer = json!({
        "task": task,
        "tenant": tenant,
        "state": "accepted",
        "durability": app.sink.link().durability().as_str(),
        "duplicate": duplicate,
        "status_url": url,
    });
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, url)],
        Json(answer),
    )
        .into_response())
}

async fn read_body(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let kind = text(headers, "content-type").unwrap_or("");
    let essence = kind.split(';').next().unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::MediaType);
    }
    let announced = text(headers, "content-length").and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > app.body_limit as u64) {
        return Err(Problem::TooLarge(app.body_limit));
    }
    let longest = Duration::from_secs(app.body_timeout_s);
    match tokio::time::timeout(longest, Limited::new(body, app.body_limit).collect()).await {
        Err(_) => Err(Problem::Slow(app.body_timeout_s)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::TooLarge(app.body_limit)),
        Ok(Err(_)) => Err(Problem::Broken),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

async fn take(
    app: &App,
    headers: &HeaderMap,
    body: &[u8],
    traceparent: &str,
) -> Result<Taken, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => None,
        (Some(key), None) => Some(admission::idempotency_key(key.as_bytes()).ok_or(Problem::Key)?),
        (Some(_), Some(_)) => return Err(Problem::Key),
    };
    let arrival = Arrival {
        body,
        tenant: &app.tenant,
        source: Source::Http,
        key,
        traceparent,
        foreign: false,
        now_ms: ids::now_ms(),
        random: ids::random().map_err(internal)?,
    };
    let admitted =
        admission::admit(&arrival, &app.rules, &app.topology).map_err(Problem::Contract)?;
    if let Some(refusal) = admitted.refusal {
        return Err(Problem::Refused(refusal.detail));
    }
    match app.sink.admit(&app.topology, &admitted).await {
        Ok(Stored::Accepted(task)) => Ok(Taken {
            task,
            duplicate: false,
        }),
        Ok(Stored::Duplicate(task)) => Ok(Taken {
            task,
            duplicate: true,
        }),
        Ok(Stored::Conflict(task)) => Err(Problem::Conflict(task)),
        Ok(Stored::Busy) => Err(Problem::Busy),
        Err(trouble) => Err(Problem::Store(trouble)),
    }
}

/// Answers with a task's status; another tenant's task is one that does not exist.
pub(super) async fn show(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::NotFound)?;
    let task: TaskId = id.parse().map_err(|_| Problem::NotFound)?;
    let status = reads::status(app.sink.link(), &task)
        .await
        .map_err(|error| {
            let problem = match error {
                ReadError::Store(trouble) => Problem::Store(trouble),
                ReadError::Contract(error) => Problem::Internal(error.to_string()),
            };
            if let (Outcome::Internal, Some(cause)) = (problem.outcome(), problem.cause()) {
                let tenant = app.tenant.as_str();
                tracing::error!(
                    task = task.as_str(),
                    tenant,
                    cause,
                    "could not read a status"
                );
            }
            problem
        })?;
    tracing::debug!(
        task = task.as_str(),
        tenant = app.tenant.as_str(),
        "was asked for a status"
    );
    status
        .filter(|status| status.tenant == app.tenant)
        .map(|status| Json(status).into_response())
        .ok_or(Problem::NotFound)
}

/// A header that stands there as text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn internal(error: getrandom::Error) -> Problem {
    tracing::error!(%error, "the system gives no random numbers");
    Problem::Internal(error.to_string())
}
