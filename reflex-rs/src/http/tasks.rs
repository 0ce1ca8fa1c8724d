//! `POST /v1/tasks` and `GET /v1/tasks/{id}`.

use std::time::Instant;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{Source, TaskId};
use contracts::ids;

use super::taking::{self, About, Taken};
use super::{answered, durable, forward, App, Problem};
use crate::admission::{self, Arrival};
use crate::metrics::{Door, Outcome, Route};
use crate::reads;

/// Takes a task, or says why not; counts and logs it, whatever comes of it.
pub(super) async fn submit(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let traceparent = taking::traceparent(&head.headers)?;
    let read = taking::read_body(&app, &head.headers, body).await;
    let about = About {
        door: Door::Http,
        tenant: &app.tenant,
        traceparent: &traceparent,
        source: None,
        arrived: Instant::now(),
    };
    let taken = match read {
        Ok(body) => take(&app, &head.headers, &body, &traceparent).await,
        Err(problem) => Err(problem),
    };
    let ended = taken.as_ref().map(|taken| {
        let outcome = if taken.duplicate {
            Outcome::Duplicate
        } else {
            Outcome::Accepted
        };
        (outcome, Some(taken.task.as_str()))
    });
    taking::report(&app, &about, ended);
    taken.map(|taken| taking::accepted(&app.tenant, &taken))
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
        received: body,
        tenant: &app.tenant,
        source: Source::Http,
        key,
        traceparent,
        foreign: false,
        now_ms: ids::now_ms(),
        random: ids::random().map_err(taking::no_randomness)?,
    };
    taking::take(app, &arrival, durable::needed(app, headers)?).await
}

/// A task id from the address; anything else cannot exist.
pub(super) fn task_id(id: Result<Path<String>, PathRejection>) -> Result<TaskId, Problem> {
    let Path(id) = id.map_err(|_| Problem::NotFound)?;
    id.parse().map_err(|_| Problem::NotFound)
}

/// Answers with a task's status; another tenant's task is one that does not exist.
pub(super) async fn show(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let status = status(&app, id, &uri, &headers).await;
    answered(&app, Route::Status, status)
}

async fn status(
    app: &App,
    id: Result<Path<String>, PathRejection>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    let task = task_id(id)?;
    let link = app.sink.link();
    match reads::status(link, &task).await? {
        Some(status) if status.tenant != app.tenant => Err(Problem::NotFound),
        Some(mut status) => {
            let waiting = reads::waiting(link, &app.topology, &status, ids::now_ms()).await?;
            status.waiting = waiting;
            Ok((Outcome::Served, Json(status).into_response()))
        }
        None if app.api.is_some() => forward::pass_on(app, uri, headers).await,
        None => Err(Problem::NotFound),
    }
}
