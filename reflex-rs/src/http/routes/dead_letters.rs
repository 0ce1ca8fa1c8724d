//! `DELETE /v1/dead-letters/{id}`: requests that a dead letter is marked as dropped. The archive keeps it.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{DeadDrop, Timestamp};
use contracts::ids;
use serde::Deserialize;
use serde_json::json;

use super::run_command;
use crate::caller::Caller;
use crate::http::extract::{self, Authorized, Operate};
use crate::http::{App, Problem};
use crate::metrics::Route;
use crate::outcome::Outcome;

/// The part of the API's answer that is used here.
#[derive(Deserialize)]
struct ArchivedDeadLetter {
    #[serde(default)]
    dropped_at: Option<String>,
}

/// Answers 202 once the drop is requested, and 200 if the dead letter was dropped before.
pub(in crate::http) async fn drop_dead_letter(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Operate>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (of_app, of) = (Arc::clone(&app), caller.clone());
    let command = async move { request_drop(&of_app, &of, id, &headers).await };
    run_command(&app, Route::DropDeadLetter, &caller, command).await
}

async fn request_drop(
    app: &App,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    let number = number(id)?;
    let traceparent = extract::traceparent(headers)?;
    let lookup = &app.service.lookup;
    let api = lookup.api.as_ref().ok_or(Problem::ApiNotConfigured)?;
    let path = format!("/v1/dead-letters/{number}");
    let known: Option<ArchivedDeadLetter> = api.read(&path, caller).await?;
    if let Some(dropped_at) = known.ok_or(Problem::NotFound)?.dropped_at {
        let body = json!({ "id": number, "accepted": false, "dropped_at": dropped_at });
        let response = (StatusCode::OK, Json(body)).into_response();
        return Ok((Outcome::Unchanged, response));
    }
    let message = DeadDrop {
        dead_letter: number.try_into()?,
        tenant: caller.tenant.clone(),
        requested_at: Timestamp::try_from(ids::timestamp(lookup.store.now_ms()?))?,
    };
    lookup
        .store
        .drop_dead_letter(&message, &traceparent)
        .await?;
    let body = json!({ "id": number, "accepted": true });
    let response = (StatusCode::ACCEPTED, Json(body)).into_response();
    Ok((Outcome::Accepted, response))
}

/// Parses the number of a dead letter. One with an invalid number cannot exist.
fn number(id: Result<Path<String>, PathRejection>) -> Result<i64, Problem> {
    let Path(id) = id.map_err(|_| Problem::NotFound)?;
    let canonical = id.bytes().all(|byte| byte.is_ascii_digit()) && !id.starts_with('0');
    id.parse()
        .ok()
        .filter(|number| canonical && *number <= contracts::events::fields::MAX_SAFE)
        .ok_or(Problem::NotFound)
}
