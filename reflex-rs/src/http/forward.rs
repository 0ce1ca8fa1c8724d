//! Older and wider reads: whatever else is asked for below `/v1/` is the API's to answer.

use axum::body::Body;
use axum::extract::State;
use axum::http::{header, HeaderMap, HeaderName, Uri};
use axum::response::Response;

use super::{answered, App, Problem};
use crate::metrics::{Outcome, Route};

/// Of the caller's headers, those that the API may see. Never who the caller is: that is said by this side.
static ASKED: [HeaderName; 2] = [header::ACCEPT, HeaderName::from_static("traceparent")];
/// Of the API's headers, those that the caller sees.
static TOLD: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    header::ALLOW,
];

/// Passes a read on.
pub(super) async fn forward(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let passed = pass_on(&app, &uri, &headers).await;
    answered(&app, Route::Forward, passed)
}

/// The API's answer as it comes, whatever its status.
pub(super) async fn pass_on(
    app: &App,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    let api = app.api.as_ref().ok_or(Problem::NoApi)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let asked = ASKED
        .iter()
        .filter_map(|name| Some((name, headers.get(name)?)));
    let (head, body) = api.get(path, &app.tenant, asked).await?.into_parts();
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = head.status;
    for name in &TOLD {
        if let Some(value) = head.headers.get(name) {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    Ok((Outcome::Served, response))
}
