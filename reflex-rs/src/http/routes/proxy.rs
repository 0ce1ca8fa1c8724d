//! Requests that only the API can answer: commands about callbacks, and every other read below `/v1/`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{header, HeaderMap, HeaderName, Method, Uri};
use axum::response::Response;

use super::record;
use crate::caller::Caller;
use crate::http::extract::{Authorized, Operate, Read};
use crate::http::{App, Problem};
use crate::metrics::Route;
use crate::outcome::Outcome;

/// Request headers that the API receives. Never the caller's identity: the API client sets it.
static REQUEST_HEADERS: [HeaderName; 2] = [header::ACCEPT, HeaderName::from_static("traceparent")];
/// Response headers that the client receives.
static RESPONSE_HEADERS: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    header::ALLOW,
];

/// Sends a read to the API.
pub(in crate::http) async fn proxy(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Read>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = send(&app, &caller, &uri, &headers);
    record(&app, Route::Proxy, &caller, request).await
}

/// Sends a command to the API. It has no body.
pub(in crate::http) async fn command(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Operate>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = forward(&app, &caller, &Method::POST, &uri, &headers);
    record(&app, Route::ProxyCommand, &caller, request).await
}

/// Returns the API's response to a read, whatever its status.
pub(super) async fn send(
    app: &App,
    caller: &Caller,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    forward(app, caller, &Method::GET, uri, headers).await
}

async fn forward(
    app: &App,
    caller: &Caller,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    let api = app.service.lookup.api.as_ref();
    let api = api.ok_or(Problem::ApiNotConfigured)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let forwarded = REQUEST_HEADERS
        .iter()
        .filter_map(|name| Some((name, headers.get(name)?)));
    let response = api.forward(method, path, caller, forwarded).await?;
    let (head, body) = response.into_parts();
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = head.status;
    for name in &RESPONSE_HEADERS {
        if let Some(value) = head.headers.get(name) {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    Ok((Outcome::Served, response))
}
