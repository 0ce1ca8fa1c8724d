//! All routes and the middleware around them.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use axum::Router;
use tower_http::catch_panic::CatchPanicLayer;

use super::cors;
use super::middleware::{check_host, count_in_flight, panic_response};
use super::routes::admin::ReflexProbe;
use super::routes::{batch, cancel, dead_letters, events, proxy, quota, runs, tasks, webhooks};
use super::{App, Problem};

/// Builds the service that answers every request.
pub fn router(app: Arc<App>) -> Router {
    let cors = cors::layer(&app.cors_origins);
    let router = Router::new()
        .route("/v1/tasks", post(tasks::submit).get(proxy::proxy))
        .route("/v1/tasks:batch", post(batch::submit))
        .route("/v1/tasks/{id}", get(tasks::show).delete(cancel::cancel))
        .route("/v1/tasks/{id}/events", get(events::stream))
        .route("/v1/tasks/{id}/runs", post(runs::redrive).get(proxy::proxy))
        .route(
            "/v1/dead-letters/{id}",
            delete(dead_letters::drop_dead_letter).get(proxy::proxy),
        )
        .route("/v1/quota", get(quota::show))
        .route("/v1/webhooks/{source}", post(webhooks::receive))
        .route("/v1/callbacks/{id}/redeliver", post(proxy::command))
        .route("/v1/callback-endpoints/{id}/enable", post(proxy::command))
        .route("/v1/{*rest}", get(proxy::proxy))
        .merge(service::admin::router(
            ReflexProbe(Arc::clone(&app)),
            app.supervisor.clone(),
        ))
        .fallback(|| async { Problem::NotFound })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .layer(from_fn_with_state(Arc::clone(&app), check_host))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(from_fn_with_state(Arc::clone(&app), count_in_flight))
        .with_state(app);
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}
