//! The listener beside the worker: /metrics for Prometheus, /healthz and /readyz for whoever supervises it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{header, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{json, Value};
use tokio::net::TcpListener;

use super::Shared;

/// An orchestrator of containers asks often; Redis must not hold the answer up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listens; the address is the real one where port 0 was asked for.
pub async fn listen(listen: &str) -> Result<(TcpListener, SocketAddr), String> {
    let failed = |error: std::io::Error| {
        format!("cannot listen on {listen} for metrics ({error}); set OCTOLLM_EXECUTOR_METRICS_LISTEN to a free address (port 0 picks one)")
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/healthz", get(|| async { Json(json!({ "alive": true })) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the listener for metrics ended");
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let mut reasons = shared.reasons();
    match tokio::time::timeout(PATIENCE, shared.calls.ping()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => reasons.push(format!("no Redis at {} ({error})", shared.calls.shown)),
        Err(_) => reasons.push(format!("Redis at {} does not answer", shared.calls.shown)),
    }
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let answer = json!({ "ready": reasons.is_empty(), "reasons": reasons });
    (status, Json(answer))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let kind = [(
        header::CONTENT_TYPE,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )];
    match shared.metrics.text() {
        Ok(text) => (StatusCode::OK, kind, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
    }
}
