//! `DELETE /v1/tasks/{id}`: stops what runs of a task and asks the orchestrator to cancel it.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{TaskCancel, Text, Timestamp};
use contracts::{ids, ContractError};
use serde::Deserialize;
use serde_json::json;

use super::run_command;
use crate::admission::Redactions;
use crate::caller::Caller;
use crate::http::extract::{self, optional_object, task_id, Authorized, Cancel};
use crate::http::{App, Problem};
use crate::metrics::Route;
use crate::outcome::Outcome;
use crate::store::is_terminal;
use crate::store::Cancelled;
use crate::trace;

/// The optional body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelRequest {
    /// Why, in the client's words.
    #[serde(default)]
    detail: Option<String>,
}

/// Answers 202 once the request is stored, and 200 if the task had ended before. What is left of an ended task is stopped, too.
pub(in crate::http) async fn cancel(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Cancel>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (of_app, of) = (Arc::clone(&app), caller.clone());
    let command = async move { request_cancel(&of_app, &of, id, request).await };
    run_command(&app, Route::Cancel, &caller, command).await
}

async fn request_cancel(
    app: &App,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<(Outcome, Response), Problem> {
    let task = task_id(id)?;
    let traceparent = extract::traceparent(request.headers())?;
    let detail = detail(app, request).await?;
    let lookup = &app.service.lookup;
    let known = lookup.summary(caller, &task).await?;
    let answer = |status, outcome, state: &str| {
        let body = json!({ "task": task.as_str(), "state": state });
        Ok((outcome, (status, Json(body)).into_response()))
    };
    let message = TaskCancel {
        task: task.clone(),
        tenant: caller.tenant.clone(),
        requested_at: Timestamp::try_from(ids::timestamp(lookup.store.now_ms()?))?,
        detail,
    };
    match lookup
        .store
        .cancel(&message, known.run, &traceparent)
        .await?
    {
        // The store has lost the status, and the API knows that the task has ended.
        Cancelled::Accepted(None) if is_terminal(known.state) => {
            answer(StatusCode::OK, Outcome::Ended, known.state.as_str())
        }
        Cancelled::Accepted(state) => {
            tracing::info!(
                task = task.as_str(),
                tenant = caller.tenant.as_str(),
                trace = trace::trace_id(&traceparent),
                "requested that a task is cancelled"
            );
            // The store has no status of a task that only the API knows.
            let state = state.unwrap_or(known.state);
            answer(StatusCode::ACCEPTED, Outcome::Accepted, state.as_str())
        }
        Cancelled::Ended(state) => answer(StatusCode::OK, Outcome::Ended, state.as_str()),
        Cancelled::OtherTenant => Err(Problem::NotFound),
    }
}

/// Reads the reason from the query or the body, and removes personal data from it.
async fn detail(app: &App, request: Request) -> Result<Option<Text<0, 2000>>, Problem> {
    let mut detail = None;
    for (name, value) in form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()) {
        if name != "detail" || detail.is_some() {
            let rule = "may contain detail, once, and nothing else";
            return Err(ContractError::schema("query", rule).into());
        }
        detail = Some(value.into_owned());
    }
    let (head, body) = request.into_parts();
    let request: Option<CancelRequest> = optional_object(app, &head.headers, body).await?;
    if let Some(CancelRequest {
        detail: Some(in_body),
    }) = request
    {
        if detail.is_some() {
            let rule = "is in the query and in the body; send it once";
            return Err(ContractError::schema("detail", rule).into());
        }
        detail = Some(in_body);
    }
    let Some(detail) = detail else {
        return Ok(None);
    };
    if detail.contains('\0') {
        return Err(ContractError::schema("detail", "must not contain NUL").into());
    }
    let detail = Text::<0, 2000>::try_from(detail)
        .map_err(|error| ContractError::schema("detail", error.message))?;
    let rules = &app.service.rules;
    let redacted = rules.redact(detail.as_str(), &mut Redactions::default());
    // Redaction can make it longer.
    let fitting = Text::try_from(redacted).map_err(|_| {
        let rule =
            "must have at most 2000 characters after personal data was replaced, as in [email]";
        ContractError::schema("detail", rule)
    })?;
    Ok(Some(fitting))
}
