//! One file per resource.

pub(super) mod admin;
pub(super) mod batch;
pub(super) mod cancel;
pub(super) mod dead_letters;
pub(super) mod events;
mod long_poll;
pub(super) mod proxy;
pub(super) mod quota;
pub(super) mod runs;
pub(super) mod tasks;
pub(super) mod webhooks;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::TaskState;
use futures_util::FutureExt;
use serde_json::{json, Value};
use tokio::sync::oneshot;

use super::problem_document::rate_limit;
use super::{App, Problem};
use crate::caller::Caller;
use crate::metrics::{Metrics, Route};
use crate::outcome::Outcome;
use crate::request_id;
use crate::submit::Accepted;

/// The result of a request that is not a submission.
type Ended = Result<(Outcome, Response), Problem>;

/// Counts one end of a request. If it is dropped before, the client has disconnected or the handler has panicked.
struct RequestRecord {
    metrics: Arc<Metrics>,
    route: Route,
    finished: bool,
}

impl RequestRecord {
    fn finish(mut self, outcome: Outcome) {
        self.finished = true;
        self.metrics.request_ended(self.route, outcome);
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.finished {
            let panicked = std::thread::panicking();
            let outcome = if panicked {
                Outcome::Internal
            } else {
                Outcome::ClientDisconnected
            };
            self.metrics.request_ended(self.route, outcome);
        }
    }
}

/// Runs a command to its end, also if the client disconnects meanwhile, and records the end.
async fn run_command(
    app: &Arc<App>,
    route: Route,
    caller: &Caller,
    command: impl Future<Output = Ended> + Send + 'static,
) -> Result<Response, Problem> {
    let (reply, result) = oneshot::channel();
    let (run_app, caller) = (Arc::clone(app), caller.clone());
    let run = async move {
        let result = record(&run_app, route, &caller, command).await;
        // Fails if the client has disconnected.
        let _ = reply.send(result);
    };
    // A panic must not stop the process: the next request could cause it again. The dropped record counts it.
    let run = request_id::continued(app.service.running.track_future(run));
    let run = AssertUnwindSafe(run).catch_unwind();
    app.supervisor
        .spawn_task("command", async move { drop(run.await) });
    result.await.unwrap_or_else(|_| {
        let cause = "its task panicked".to_owned();
        Err(Problem::Internal(cause))
    })
}

/// Runs a request that is not a submission, counts its end, and logs it if the fault is on this side.
async fn record(
    app: &App,
    route: Route,
    caller: &Caller,
    request: impl Future<Output = Ended>,
) -> Result<Response, Problem> {
    let record = RequestRecord {
        metrics: Arc::clone(&app.metrics),
        route,
        finished: false,
    };
    let result = match app.service.quotas.read(caller).await {
        Ok(()) => request.await,
        Err(exceeded) => Err(Problem::Quota(exceeded)),
    };
    let outcome = result
        .as_ref()
        .map_or_else(Problem::outcome, |(outcome, _)| *outcome);
    record.finish(outcome);
    if let Err(problem) = &result {
        let (route, tenant, cause) = (route.as_str(), caller.tenant.as_str(), problem.cause());
        let request = request_id::current();
        let request = request.as_ref().and_then(request_id::text);
        match outcome {
            Outcome::Internal => tracing::error!(route, tenant, request, cause, "a request failed"),
            Outcome::ApiUnavailable | Outcome::ApiNotConfigured if cause.is_some() => {
                tracing::warn!(
                    route,
                    tenant,
                    request,
                    cause,
                    "the API did not answer a request"
                );
            }
            _ => {}
        }
    }
    let (_, mut response) = result?;
    if let Some(fields) = app.service.quotas.read_fields(caller) {
        response.headers_mut().extend(rate_limit(&fields));
    }
    Ok(response)
}

/// The response to an accepted submission.
fn accepted(app: &App, caller: &Caller, accepted: &Accepted) -> Response {
    let location = [(header::LOCATION, status_url(accepted))];
    let body = Json(accepted_body(caller, accepted));
    let mut response = (StatusCode::ACCEPTED, location, body).into_response();
    if let Some(fields) = app.service.quotas.submission_fields(caller) {
        response.headers_mut().extend(rate_limit(&fields));
    }
    response
}

fn status_url(accepted: &Accepted) -> String {
    format!("/v1/tasks/{}", accepted.task)
}

/// The body of that response.
fn accepted_body(caller: &Caller, accepted: &Accepted) -> Value {
    json!({
        "task": accepted.task.as_str(),
        "tenant": caller.tenant.as_str(),
        // Never a guess: a repeat may find its task ended, or nobody who knows.
        "state": accepted.state.map_or("unknown", TaskState::as_str),
        "durability": accepted.durability.to_string(),
        "duplicate": accepted.duplicate,
        "status_url": status_url(accepted),
    })
}
