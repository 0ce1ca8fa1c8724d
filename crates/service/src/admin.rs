//! The endpoints for those who operate a process: `/healthz`, `/readyz` and `/metrics`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{header, HeaderMap, HeaderValue, StatusCode};
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
///
/// `S`: the state of the router that these are merged into.
pub fn router<P, S>(probe: P, supervisor: Supervisor) -> Router<S>
where
    P: Probe,
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz::<P>))
        .route("/metrics", get(metrics::<P>))
        .with_state(Arc::new(Admin { probe, supervisor }))
}

async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn readyz<P: Probe>(
    State(admin): State<Arc<Admin<P>>>,
) -> (StatusCode, HeaderMap, Json<Value>) {
    let mut reasons = admin.probe.unready_reasons().await;
    reasons.extend(
        admin
            .supervisor
            .failure()
            .map(|failure| failure.to_string()),
    );
    let mut headers = HeaderMap::new();
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        StatusCode::SERVICE_UNAVAILABLE
    };
    let answer = json!({ "ready": reasons.is_empty(), "reasons": reasons });
    (status, headers, Json(answer))
}

async fn metrics<P: Probe>(State(admin): State<Arc<Admin<P>>>) -> impl IntoResponse {
    let (status, text) = match admin.probe.encode_metrics() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    (status, [(header::CONTENT_TYPE, OPEN_METRICS)], text)
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Arc;

    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::Json;
    use serde_json::json;

    use super::{readyz, Admin, Probe};
    use crate::supervisor::Supervisor;

    struct Reasons(Vec<String>);

    impl Probe for Reasons {
        async fn unready_reasons(&self) -> Vec<String> {
            self.0.clone()
        }

        fn encode_metrics(&self) -> Result<String, fmt::Error> {
            Ok(String::new())
        }
    }

    #[tokio::test]
    async fn a_process_is_ready_without_reasons_and_without_a_broken_task() {
        let supervisor = Supervisor::default();
        let ask = |reasons: &[&str]| {
            let probe = Reasons(reasons.iter().map(|&text| text.to_owned()).collect());
            let supervisor = supervisor.clone();
            readyz(State(Arc::new(Admin { probe, supervisor })))
        };
        let (status, headers, Json(answer)) = ask(&[]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(headers.is_empty());
        assert_eq!(answer, json!({"ready": true, "reasons": []}));
        let (status, headers, Json(answer)) = ask(&["no Redis"]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers["retry-after"], "1");
        assert_eq!(answer, json!({"ready": false, "reasons": ["no Redis"]}));
        supervisor.spawn_loop("reader", async {});
        supervisor.failed().await;
        let (status, _, Json(answer)) = ask(&[]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let reason = "task \"reader\" ended unexpectedly";
        assert_eq!(answer, json!({"ready": false, "reasons": [reason]}));
    }
}
