//! The endpoints for those who operate a process: `/healthz`, `/readyz` and `/metrics`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{header, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{json, Value};

use crate::supervisor::Supervisor;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a program knows about its own state.
pub trait Probe: Send + Sync + 'static {
    /// Why the process cannot do its work at the moment; empty when it is ready. Must answer within a second.
    fn unready_reasons(&self) -> impl Future<Output = Vec<String>> + Send;

    /// The metrics in the `OpenMetrics` text format.
    fn encode_metrics(&self) -> Result<String, fmt::Error>;
}

struct Admin<P> {
    probe: P,
    supervisor: Supervisor,
}

/// The routes. A failed task of the supervisor makes the process unready, whatever the probe says.
pub fn router<P: Probe>(probe: P, supervisor: Supervisor) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz::<P>))
        .route("/metrics", get(metrics::<P>))
        .with_state(Arc::new(Admin { probe, supervisor }))
}

async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn readyz<P: Probe>(State(admin): State<Arc<Admin<P>>>) -> (StatusCode, Json<Value>) {
    let mut reasons = admin.probe.unready_reasons().await;
    reasons.extend(
        admin
            .supervisor
            .failure()
            .map(|failure| failure.to_string()),
    );
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let answer = json!({ "ready": reasons.is_empty(), "reasons": reasons });
    (status, Json(answer))
}

async fn metrics<P: Probe>(State(admin): State<Arc<Admin<P>>>) -> impl IntoResponse {
    let (status, text) = match admin.probe.encode_metrics() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    (status, [(header::CONTENT_TYPE, OPEN_METRICS)], text)
}
