//! One file per resource.

pub(super) mod admin;
pub(super) mod cancel;
pub(super) mod dead_letters;
pub(super) mod events;
pub(super) mod proxy;
pub(super) mod runs;
pub(super) mod tasks;
pub(super) mod webhooks;

use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde_json::json;

use super::{App, Problem};
use crate::caller::Caller;
use crate::metrics::Route;
use crate::outcome::Outcome;
use crate::submit::Accepted;

/// Counts the end of a request that is not a submission, and logs it if the fault is on this side.
fn finish(
    app: &App,
    route: Route,
    caller: &Caller,
    result: Result<(Outcome, Response), Problem>,
) -> Result<Response, Problem> {
    let outcome = result
        .as_ref()
        .map_or_else(Problem::outcome, |(outcome, _)| *outcome);
    app.metrics.request_ended(route, outcome);
    if let Err(problem) = &result {
        let (route, tenant, cause) = (route.as_str(), caller.tenant.as_str(), problem.cause());
        match outcome {
            Outcome::Internal => tracing::error!(route, tenant, cause, "a request failed"),
            Outcome::ApiUnavailable => {
                tracing::warn!(route, tenant, cause, "the API did not answer a request");
            }
            _ => {}
        }
    }
    result.map(|(_, response)| response)
}

/// The response to an accepted submission.
fn accepted(caller: &Caller, accepted: &Accepted) -> Response {
    let task = accepted.task.as_str();
    let url = format!("/v1/tasks/{task}");
    let body = json!({
        "task": task,
        "tenant": caller.tenant.as_str(),
        "state": "accepted",
        "durability": accepted.durability.to_string(),
        "duplicate": accepted.duplicate,
        "status_url": url,
    });
    let location = [(header::LOCATION, url)];
    (StatusCode::ACCEPTED, location, Json(body)).into_response()
}
