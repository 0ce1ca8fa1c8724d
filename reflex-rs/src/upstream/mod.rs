//! The client of the Python API, which answers from Postgres. Plain HTTP inside one network. The caller's tenant travels in a
//! header that only this client sets.

mod body;

pub use body::ProxiedBody;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::caller::Caller;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a read may wait for its turn.
const SLOT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a response may take to begin.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the body of a response that is read whole may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// Below the keep-alive of the API's server, so that no request uses a connection that the server is just closing.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Size limit of a response that is read whole. 500 events of the longest kind fit.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
const TENANT: HeaderName = HeaderName::from_static("octollm-tenant");

/// Why there is no answer from the API.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the API is unavailable: {0}")]
    Unavailable(String),
    /// As many requests wait for it as the settings allow.
    #[error("too many requests wait for the API")]
    Overloaded,
}

/// Sends requests to the API at one address.
pub struct ApiClient {
    client: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    slots: Arc<Semaphore>,
}

impl ApiClient {
    /// `url` is `http://host:port`; `max_requests` limits the requests that wait for an answer. Does not connect yet.
    #[must_use]
    pub fn new(url: &str, max_requests: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build(connector);
        Self {
            client,
            base: url.trim_end_matches('/').to_owned(),
            slots: Arc::new(Semaphore::new(max_requests)),
        }
    }

    /// Sends GET for `path`, which includes the query, on behalf of the caller. Every status is an answer, not an error.
    pub async fn get<'a>(
        &self,
        path: &str,
        caller: &Caller,
        headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    ) -> Result<Response<ProxiedBody>, ApiError> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded)?;
        self.send(path, caller, headers, slot).await
    }

    async fn send<'a>(
        &self,
        path: &str,
        caller: &Caller,
        headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Response<ProxiedBody>, ApiError> {
        let mut request =
            Request::get(format!("{}{path}", self.base)).header(TENANT, caller.tenant.as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| ApiError::Unavailable(error.to_string()))?;
        match tokio::time::timeout(HEAD_TIMEOUT, self.client.request(request)).await {
            Err(_) => Err(ApiError::Unavailable(format!(
                "no answer within {} s",
                HEAD_TIMEOUT.as_secs()
            ))),
            Ok(Err(error)) => Err(ApiError::Unavailable(with_causes(&error))),
            Ok(Ok(response)) => Ok(response.map(|body| ProxiedBody::new(body, slot))),
        }
    }

    /// Sends GET for `path` and reads the JSON answer; `None` if the API answers 404.
    ///
    /// Waits its turn while as many requests wait for the API as the settings allow: callers have a limit of their own.
    pub async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        caller: &Caller,
    ) -> Result<Option<T>, ApiError> {
        let slot = Arc::clone(&self.slots).acquire_owned();
        let Ok(Ok(slot)) = tokio::time::timeout(SLOT_TIMEOUT, slot).await else {
            return Err(ApiError::Overloaded);
        };
        let response = self.send(path, caller, std::iter::empty(), slot).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(ApiError::Unavailable(format!("it answered {status}"))),
        }
        let whole = Limited::new(response.into_body(), MAX_BODY_BYTES).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, whole).await {
            Err(_) => {
                return Err(ApiError::Unavailable(
                    "its response did not end in time".to_owned(),
                ))
            }
            Ok(Err(error)) => return Err(ApiError::Unavailable(error.to_string())),
            Ok(Ok(body)) => body.to_bytes(),
        };
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| ApiError::Unavailable(format!("its response is invalid: {error}")))
    }
}

/// Formats an error with its causes: hyper's own message says little.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
