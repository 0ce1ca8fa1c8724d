//! `DELETE /v1/tasks/{id}`: marks a task as cancelled and tells the orchestrator.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{TaskCancel, Text, Timestamp};
use contracts::{ids, ContractError};
use serde::Deserialize;
use serde_json::json;

use super::lookup::{is_terminal, look_up};
use super::tasks::task_id;
use super::{answered, taking, wish, App, Problem};
use crate::admission::Redactions;
use crate::metrics::{Outcome, Route};
use crate::sink::Cancelled;
use crate::trace;

/// What may stand in the body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    detail: Option<String>,
}

/// 202 once the task is marked, 200 where it has ended already.
pub(super) async fn cancel(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let ended = mark(&app, id, request).await;
    answered(&app, Route::Cancel, ended)
}

async fn mark(
    app: &App,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<(Outcome, Response), Problem> {
    let task = task_id(id)?;
    let traceparent = taking::traceparent(request.headers())?;
    let detail = detail(app, request).await?;
    let known = look_up(app, &task).await?;
    let answer = |status, outcome, state: &str| {
        let body = json!({ "task": task.as_str(), "state": state });
        Ok((outcome, (status, Json(body)).into_response()))
    };
    if is_terminal(known.state) {
        return answer(StatusCode::OK, Outcome::Ended, known.state.as_str());
    }
    let message = TaskCancel {
        task: task.clone(),
        tenant: app.tenant.clone(),
        requested_at: Timestamp::try_from(ids::utc_now()).map_err(Problem::Contract)?,
        detail,
    };
    match app.sink.cancel(&message, &traceparent).await? {
        Cancelled::Marked(state) => {
            let (tenant, trace) = (app.tenant.as_str(), trace::id(&traceparent));
            tracing::info!(
                task = task.as_str(),
                tenant,
                trace,
                "marked a task as cancelled"
            );
            // Redis has no status of a task that only the API knows.
            answer(
                StatusCode::ACCEPTED,
                Outcome::Marked,
                state.unwrap_or(known.state).as_str(),
            )
        }
        Cancelled::Ended(state) => answer(StatusCode::OK, Outcome::Ended, state.as_str()),
        Cancelled::Foreign => Err(Problem::NotFound),
    }
}

/// Why, in the caller's words, from the query or the body; without personal data.
async fn detail(app: &App, request: Request) -> Result<Option<Text<0, 2000>>, Problem> {
    let refused = |field: &str, why: &str| Problem::Contract(ContractError::schema(field, why));
    let mut detail = None;
    for (name, value) in form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()) {
        if name != "detail" || detail.is_some() {
            return Err(refused("query", "may hold detail, once, and nothing else"));
        }
        detail = Some(value.into_owned());
    }
    let (head, body) = request.into_parts();
    if let Some(Wish { detail: meant }) = wish::read(app, &head.headers, body).await? {
        if detail.is_some() && meant.is_some() {
            return Err(refused(
                "detail",
                "stands in the query and in the body; send it once",
            ));
        }
        detail = detail.or(meant);
    }
    let Some(detail) = detail else {
        return Ok(None);
    };
    if detail.contains('\0') {
        return Err(refused("detail", "must not hold NUL"));
    }
    let fits = Text::<0, 2000>::try_from(detail);
    let detail = fits.map_err(|error| refused("detail", &error.message))?;
    // Redacting may make it longer.
    let redacted = app
        .rules
        .redact(detail.as_str(), &mut Redactions::default());
    Text::cut(&redacted).map(Some).map_err(Problem::Contract)
}
