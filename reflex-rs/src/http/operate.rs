//! What operators and their machines ask: is it alive, is it ready, what does it count.

use axum::extract::State;
use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde_json::{json, Value};

use super::{App, Problem};
use crate::metrics::CONTENT_TYPE;

/// The process serves HTTP; nothing more is said.
pub(super) async fn healthy() -> Json<Value> {
    Json(json!({ "alive": true }))
}

/// 200 only while Redis answers.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    match app.sink.link().ping().await {
        Ok(()) => (
            StatusCode::OK,
            Json(json!({ "ready": true, "reasons": [] })),
        ),
        Err(trouble) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "ready": false, "reasons": [trouble.to_string()] })),
        ),
    }
}

pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text = app
        .metrics
        .text()
        .map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
