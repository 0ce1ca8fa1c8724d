//! Which web pages may use the HTTP API from another origin (CORS). None, unless the settings name their origins.

use std::time::Duration;

use axum::http::{header, HeaderName, HeaderValue, Method};
use tower_http::cors::CorsLayer;

use crate::request_id::REQUEST_ID;

/// How long a browser may remember the answer to its preflight request.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Request headers that a page may send.
static ALLOWED: [HeaderName; 9] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("octollm-durability"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-api-key"),
    REQUEST_ID,
];
/// Response headers that a page may read, besides the few that it always may.
static EXPOSED: [HeaderName; 6] = [
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    REQUEST_ID,
];

/// The middleware for these origins; `None` without any.
pub(super) fn layer(origins: &[HeaderValue]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(ALLOWED.clone())
        .expose_headers(EXPOSED.clone())
        .max_age(MAX_AGE);
    Some(layer)
}
