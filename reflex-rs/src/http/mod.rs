//! The HTTP door: its routes and what every request shares. Never touches Redis itself.

mod cancel;
mod durable;
mod events;
mod forward;
mod letters;
mod lookup;
mod operate;
mod problem;
mod redrive;
mod server;
mod taking;
mod tasks;
mod webhooks;
mod wish;

pub use problem::Problem;
pub use server::serve;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{from_fn_with_state, Next};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::Router;
use contracts::events::Tenant;
use contracts::settings;
use contracts::topology::Topology;
use indexmap::IndexMap;
use service::{Stop, Supervisor};
use tokio::sync::Semaphore;

use crate::admission::Rules;
use crate::api::Api;
use crate::durability::Durability;
use crate::metrics::{Metrics, Outcome, Route};
use crate::reads::Tail;
use crate::sink::Sink;
use crate::webhooks::Source;

/// What every request needs.
#[derive(Clone)]
pub struct App {
    pub sink: Arc<Sink>,
    pub rules: Arc<Rules>,
    pub topology: Arc<Topology>,
    pub metrics: Arc<Metrics>,
    /// Who may send webhooks, by name.
    pub sources: Arc<IndexMap<String, Source>>,
    /// Whose tasks come through this door, until there are credentials.
    pub tenant: Tenant,
    /// Where older reads are answered.
    pub api: Option<Arc<Api>>,
    pub tail: Arc<Tail>,
    /// One for each live view.
    pub event_slots: Arc<Semaphore>,
    /// Turns true when the process is to end; what has no end of its own ends then.
    pub stop: Stop,
    /// Owns what outlives its request.
    pub supervisor: Supervisor,
    pub body_limit: usize,
    pub body_timeout_s: u64,
    /// What every 202 needs.
    pub durability: Durability,
    /// How many replicas are meant where a request names no number.
    pub replicas: usize,
    /// Longest that what a 202 needs is waited for.
    pub durability_wait: Duration,
}

impl App {
    #[must_use]
    pub fn new(parts: Parts, settings: &settings::Settings) -> Self {
        let reflex = &settings.reflex;
        let url = &settings.api.url;
        let api = (!url.is_empty()).then(|| Arc::new(Api::new(url, reflex.max_forwards)));
        Self {
            tail: Arc::new(Tail::start(
                parts.sink.link(),
                &parts.topology,
                &parts.supervisor,
            )),
            sink: parts.sink,
            rules: parts.rules,
            topology: parts.topology,
            metrics: parts.metrics,
            sources: Arc::new(parts.sources),
            tenant: parts.tenant,
            api,
            event_slots: Arc::new(Semaphore::new(reflex.max_event_streams)),
            stop: parts.supervisor.stop(),
            supervisor: parts.supervisor,
            body_limit: reflex.body_limit_bytes,
            body_timeout_s: reflex.body_timeout_s,
            durability: Durability::of(reflex),
            replicas: reflex.durability_replicas,
            durability_wait: Duration::from_secs(reflex.durability_wait_s),
        }
    }
}

/// What the program has made already.
pub struct Parts {
    pub sink: Arc<Sink>,
    pub rules: Arc<Rules>,
    pub topology: Arc<Topology>,
    pub metrics: Arc<Metrics>,
    pub sources: IndexMap<String, Source>,
    pub tenant: Tenant,
    pub supervisor: Supervisor,
}

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/tasks", post(tasks::submit).get(forward::forward))
        .route("/v1/tasks/{id}", get(tasks::show).delete(cancel::cancel))
        .route("/v1/tasks/{id}/events", get(events::watch))
        .route(
            "/v1/tasks/{id}/runs",
            post(redrive::redrive).get(forward::forward),
        )
        .route(
            "/v1/dead-letters/{id}",
            delete(letters::drop_letter).get(forward::forward),
        )
        .route("/v1/webhooks/{source}", post(webhooks::receive))
        .route("/v1/{*rest}", get(forward::forward))
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

/// Counts the end of a request that is no submission, and logs it where it is a fault of ours.
fn answered(
    app: &App,
    route: Route,
    ended: Result<(Outcome, Response), Problem>,
) -> Result<Response, Problem> {
    let outcome = ended
        .as_ref()
        .map_or_else(Problem::outcome, |(outcome, _)| *outcome);
    app.metrics.answered(route, outcome);
    if let Err(problem) = &ended {
        let (route, tenant, cause) = (route.as_str(), app.tenant.as_str(), problem.cause());
        match outcome {
            Outcome::Internal => {
                tracing::error!(route, tenant, cause, "could not answer a request");
            }
            Outcome::Api => tracing::warn!(route, tenant, cause, "the API did not answer"),
            _ => {}
        }
    }
    ended.map(|(_, response)| response)
}
