//! What happens around every request.

use std::any::Any;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{App, Problem};

/// Counts the request as in flight until its response begins.
pub(super) async fn count_in_flight(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let _in_flight = app.metrics.in_flight();
    next.run(request).await
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
