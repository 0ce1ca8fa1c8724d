//! `DELETE /v1/dead-letters/{id}`: says that nothing is to be done about a dead letter. It is kept, and marked.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{DeadDrop, Timestamp};
use contracts::ids;
use serde::Deserialize;
use serde_json::json;

use super::{answered, taking, App, Problem};
use crate::metrics::{Outcome, Route};

/// As much of a letter as counts here.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    dropped_at: Option<String>,
}

/// 202 once the archive is told, 200 where it was dropped before.
pub(super) async fn drop_letter(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ended = tell(&app, id, &headers).await;
    answered(&app, Route::Drop, ended)
}

async fn tell(
    app: &App,
    id: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    let number = number(id)?;
    let traceparent = taking::traceparent(headers)?;
    let api = app.api.as_ref().ok_or(Problem::NoApi)?;
    let path = format!("/v1/dead-letters/{number}");
    let known: Option<Known> = api.read(&path, &app.tenant).await?;
    if let Some(dropped_at) = known.ok_or(Problem::NotFound)?.dropped_at {
        let body = json!({ "id": number, "asked": false, "dropped_at": dropped_at });
        return Ok((Outcome::Left, (StatusCode::OK, Json(body)).into_response()));
    }
    let message = DeadDrop {
        letter: number.try_into().map_err(Problem::Contract)?,
        tenant: app.tenant.clone(),
        requested_at: Timestamp::try_from(ids::utc_now()).map_err(Problem::Contract)?,
    };
    let lane = app.topology.lanes.first().map_or("l0", String::as_str);
    app.sink.drop_letter(&message, lane, &traceparent).await?;
    let body = json!({ "id": number, "asked": true });
    let response = (StatusCode::ACCEPTED, Json(body)).into_response();
    Ok((Outcome::Asked, response))
}

/// The number of a letter; anything else cannot exist.
fn number(id: Result<Path<String>, PathRejection>) -> Result<i64, Problem> {
    let Path(id) = id.map_err(|_| Problem::NotFound)?;
    let plain = id.bytes().all(|byte| byte.is_ascii_digit()) && !id.starts_with('0');
    let number = id.parse().ok().filter(|_| plain);
    number
        .filter(|number| *number <= contracts::events::fields::MAX_SAFE)
        .ok_or(Problem::NotFound)
}
