//! The HTTP door: its routes and what every request shares. Never touches Redis itself.

mod operate;
mod problem;
mod server;
mod tasks;

pub use problem::Problem;
pub use server::serve;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{from_fn_with_state, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::Router;
use contracts::events::Tenant;
use contracts::settings;
use contracts::topology::Topology;

use crate::admission::Rules;
use crate::metrics::Metrics;
use crate::sink::Sink;

/// What every request needs.
#[derive(Clone)]
pub struct App {
    pub sink: Arc<Sink>,
    pub rules: Arc<Rules>,
    pub topology: Arc<Topology>,
    pub metrics: Arc<Metrics>,
    /// Whose tasks come through this door, until there are credentials.
    pub tenant: Tenant,
    pub body_limit: usize,
    pub body_timeout_s: u64,
}

impl App {
    #[must_use]
    pub fn new(
        sink: Arc<Sink>,
        rules: Arc<Rules>,
        topology: Arc<Topology>,
        metrics: Arc<Metrics>,
        tenant: Tenant,
        settings: &settings::Reflex,
    ) -> Self {
        Self {
            sink,
            rules,
            topology,
            metrics,
            tenant,
            body_limit: settings.body_limit_bytes,
            body_timeout_s: settings.body_timeout_s,
        }
    }
}

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/tasks", post(tasks::submit))
        .route("/v1/tasks/{id}", get(tasks::show))
        .route("/healthz", get(operate::healthy))
        .route("/readyz", get(operate::ready))
        .route("/metrics", get(operate::metrics))
        .fallback(|| async { Problem::NotFound })
        .method_not_allowed_fallback(|| async { Problem::Method })
        .layer(from_fn_with_state(app.clone(), count))
        .with_state(app)
}

async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let _in_flight = app.metrics.in_flight();
    next.run(request).await
}
