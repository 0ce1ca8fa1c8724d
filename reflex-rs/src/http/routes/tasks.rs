//! `POST /v1/tasks` and `GET /v1/tasks/{id}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{ResultAddress, Source, TaskId, Text};
use contracts::ContractError;

use super::{accepted, long_poll, proxy, record};
use crate::admission::Submission;
use crate::caller::Caller;
use crate::http::extract::{self, task_id, Authorized, Read, Submit};
use crate::http::{App, Problem};
use crate::metrics::Route;
use crate::outcome::Outcome;
use crate::submit::{Context, Record, Refusals, Requirements};

/// What to do about a result that only the API can read, where none is configured.
const NOT_IN_REDIS: &str =
    "the result is too large for Redis and is kept in Postgres, which the reflex does not read: run `octollm api` and \
     read this path from it, or set OCTOLLM_API_URL, so that the reflex forwards the request";

/// Submits a task.
pub(in crate::http) async fn submit(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Submit>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let traceparent = extract::traceparent(&head.headers)?;
    let context = Context {
        source: Source::Http,
        caller: caller.clone(),
        traceparent: traceparent.clone(),
        webhook: None,
        entry: None,
    };
    let mut record = Record::new(Arc::clone(&app.metrics), context);
    // Held until the response.
    let slot = app.submission_slots.try_acquire();
    let read = match &slot {
        Ok(_) => read(&app, &head.headers, body, traceparent, &mut record).await,
        Err(_) => Err(Problem::TooManySubmissions),
    };
    let (submission, requirements) = match read {
        Ok(read) => read,
        Err(problem) => {
            record.finish(&problem.final_outcome());
            return Err(problem);
        }
    };
    let stored = app
        .service
        .submit(record, &caller, submission, requirements)
        .await?;
    Ok(accepted(&app, &caller, &stored))
}

async fn read(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    traceparent: String,
    record: &mut Record,
) -> Result<(Submission, Requirements), Problem> {
    let body = extract::json_bytes(app, headers, body).await?;
    record.received();
    let submission = Submission {
        source: Source::Http,
        received: None,
        body,
        idempotency_key: extract::idempotency_key(headers)?,
        traceparent,
        tenant_mismatch: false,
    };
    let requirements = Requirements {
        durability: extract::durability(app, headers)?,
        refusals: Refusals::Return,
    };
    Ok((submission, requirements))
}

/// Answers with a task's status.
pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Read>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = status(&app, &caller, id, &uri, &headers);
    record(&app, Route::Status, &caller, request).await
}

async fn status(
    app: &App,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    let task = task_id(id)?;
    let (wait, uri) = long_poll::split(uri)?;
    if let Some(wait) = wait {
        long_poll::until_ended(app, (caller, headers), &task, wait).await?;
    }
    let lookup = &app.service.lookup;
    if wants_more(&uri) {
        return proxy::send(app, caller, &uri, headers).await;
    }
    match lookup.store.status(&task).await? {
        Some(status) if !caller.owns(&status.tenant) => Err(Problem::NotFound),
        Some(status) if status.result_bytes.is_some() && lookup.api.is_some() => {
            proxy::send(app, caller, &uri, headers).await
        }
        Some(mut status) => {
            status.waiting = lookup.store.waiting_steps(&status).await?;
            if status.result_bytes.is_some() {
                status.result_at = Some(in_the_api(&task)?);
            }
            Ok((Outcome::Served, Json(status).into_response()))
        }
        None if lookup.api.is_some() => proxy::send(app, caller, &uri, headers).await,
        None => Err(Problem::NotFound),
    }
}

/// Whether the answer shall have what only Postgres has.
fn wants_more(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "include")
}

/// Says where a result is that the store does not hold, while no API is configured to forward the request to.
fn in_the_api(task: &TaskId) -> Result<ResultAddress, ContractError> {
    Ok(ResultAddress {
        api_path: Text::cut(&format!("/v1/tasks/{task}"))?,
        detail: Text::cut(NOT_IN_REDIS)?,
    })
}
