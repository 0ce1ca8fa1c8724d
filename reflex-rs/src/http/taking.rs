//! What both HTTP doors for submissions share: reading a body within the limits, admission, storing, the answer.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::Tenant;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;

use super::{durable, App, Problem};
use crate::admission::{self, Arrival};
use crate::durability::Durability;
use crate::metrics::{Door, Outcome};
use crate::sink::Stored;
use crate::trace;

/// A submission that is stored.
pub(super) struct Taken {
    pub task: String,
    pub duplicate: bool,
    pub durability: Durability,
}

/// Reads a JSON body to its end; whether it is JSON is not known yet.
pub(super) async fn read_body(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, Problem> {
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

/// Admits and stores one submission, as durably as is needed.
pub(super) async fn take(
    app: &App,
    arrival: &Arrival<'_>,
    needed: Durability,
) -> Result<Taken, Problem> {
    let admitted =
        admission::admit(arrival, &app.rules, &app.topology).map_err(Problem::Contract)?;
    if let Some(refusal) = admitted.refusal {
        return Err(Problem::Refused(refusal.detail));
    }
    let (stored, durability) = durable::store(app, &admitted, needed).await?;
    let taken = |task, duplicate| {
        Ok(Taken {
            task,
            duplicate,
            durability,
        })
    };
    match stored {
        Stored::Accepted(task) => taken(task, false),
        Stored::Duplicate(task) => taken(task, true),
        Stored::Conflict(task) => Err(Problem::Conflict(task)),
        Stored::Busy => Err(Problem::Busy),
    }
}

/// Whose submission it is and where it came in, for the log.
pub(super) struct About<'a> {
    pub door: Door,
    pub tenant: &'a Tenant,
    pub traceparent: &'a str,
    /// The webhook source.
    pub source: Option<&'a str>,
    pub arrived: Instant,
}

/// Counts and logs how a submission ended; the task where there is one.
pub(super) fn report(
    app: &App,
    about: &About<'_>,
    ended: Result<(Outcome, Option<&str>), &Problem>,
) {
    let outcome = ended.map_or_else(Problem::outcome, |(outcome, _)| outcome);
    app.metrics
        .ended(about.door, outcome, about.arrived.elapsed());
    let (tenant, trace) = (about.tenant.as_str(), trace::id(about.traceparent));
    let (source, outcome) = (about.source, outcome.as_str());
    match ended {
        Ok((_, Some(task))) => {
            tracing::info!(task, tenant, trace, source, outcome, "took a submission");
        }
        Ok((_, None)) => tracing::info!(tenant, trace, source, outcome, "passed over an event"),
        // A Redis that is away or full is no news per request: `store` reports it once.
        Err(problem) => match problem.cause() {
            Some(cause) if problem.outcome() == Outcome::Internal => {
                tracing::error!(
                    tenant,
                    trace,
                    source,
                    outcome,
                    cause,
                    "could not take a submission"
                );
            }
            _ => tracing::info!(
                task = problem.task(),
                tenant,
                trace,
                source,
                outcome,
                "refused a submission"
            ),
        },
    }
}

/// The 202.
pub(super) fn accepted(tenant: &Tenant, taken: &Taken) -> Response {
    let url = format!("/v1/tasks/{}", taken.task);
    let answer = json!({
        "task": taken.task,
        "tenant": tenant.as_str(),
        "state": "accepted",
        "durability": taken.durability.to_string(),
        "duplicate": taken.duplicate,
        "status_url": url,
    });
    let location = [(header::LOCATION, url)];
    (StatusCode::ACCEPTED, location, Json(answer)).into_response()
}

/// A header that stands there as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The caller's `traceparent`, or a fresh one.
pub(super) fn traceparent(headers: &HeaderMap) -> Result<String, Problem> {
    trace::accept(text(headers, "traceparent")).map_err(no_randomness)
}

pub(super) fn no_randomness(error: getrandom::Error) -> Problem {
    tracing::error!(%error, "the system gives no random numbers");
    Problem::Internal(error.to_string())
}
