//! What operators and their machines ask: is it alive, is it ready, what does it count.

use axum::extract::State;
use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};

use super::{App, Problem};
use crate::metrics::CONTENT_TYPE;

/// The process serves HTTP; nothing more is said.
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// 200 only while Redis answers.
pub(super) async fn ready(State(app): State<App>) -> Response {
    match app.sink.link().ping().await {
        Ok(()) => "ready\n".into_response(),
        Err(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text = app
        .metrics
        .text()
        .map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
