//! `/healthz`, `/readyz` and `/metrics`, for operators and orchestration.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde_json::{json, Value};

use super::super::{App, Problem};
use crate::metrics::CONTENT_TYPE;

/// Answers as long as the process serves HTTP.
pub(in crate::http) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Answers 200 while the store answers, else 503 with the reasons.
pub(in crate::http) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    match app.service.lookup.store.ping().await {
        Ok(()) => (
            StatusCode::OK,
            Json(json!({ "ready": true, "reasons": [] })),
        ),
        Err(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "ready": false, "reasons": [error.to_string()] })),
        ),
    }
}

pub(in crate::http) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = app
        .metrics
        .text()
        .map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
