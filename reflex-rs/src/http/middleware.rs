//! What happens around every request.

use std::any::Any;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{App, Problem};
use crate::auth;
use crate::metrics::Route;

/// Counts the request as in flight until its response begins.
pub(super) async fn count_in_flight(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let _in_flight = app.metrics.in_flight();
    next.run(request).await
}

/// Refuses a request that names a foreign host, unless a credential proves who sent it: a webhook's signature, or what its route
/// demands. A web page has neither.
pub(super) async fn check_host(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let proves_its_sender = path.starts_with("/v1/webhooks/")
        || path.starts_with("/v1/") && auth::is_presented(request.headers());
    if proves_its_sender
        || app
            .hosts
            .allow(request.uri(), request.headers(), &app.cors_origins)
    {
        return next.run(request).await;
    }
    let problem = Problem::ForeignHost;
    app.metrics.request_ended(Route::Any, problem.outcome());
    problem.into_response()
}

/// Answers a request whose handler panicked; the client gets a response, and the log the reason.
#[allow(clippy::needless_pass_by_value)] // the signature that the layer asks for
pub(super) fn panic_response(panic: Box<dyn Any + Send>) -> Response {
    let reason = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(reason, "the handler of a request panicked");
    Problem::Internal("a handler panicked".to_owned()).into_response()
}
