//! The client of the Python API, which answers from Postgres. Plain HTTP inside one network. `caller_header` tells it for whom.

mod body;
mod caller_header;

pub use body::ProxiedBody;
pub use caller_header::CallerSigner;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::caller_header::CALLER;
use crate::caller::{Caller, Credential, Scope, ANONYMOUS_TENANT};

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

/// Why there is no answer from the API.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the API is unavailable: {0}")]
    Unavailable(String),
    /// As many requests wait for it as the settings allow.
    #[error("too many requests wait for the API")]
    Overloaded,
    /// The reflex cannot prove to the API who asks.
    #[error("OCTOLLM_API_SECRET is not set, so the reflex cannot prove to the API who asks")]
    NoSecret,
    /// The API does not believe the reflex.
    #[error(
        "the API answered {0}: its OCTOLLM_API_SECRET is another, or it allows no anonymous access"
    )]
    Refused(StatusCode),
}

/// Sends requests to the API at one address.
pub struct ApiClient {
    client: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    slots: Arc<Semaphore>,
    signer: Option<CallerSigner>,
}

impl ApiClient {
    /// `url` is `http://host:port`; `max_requests` limits the requests that wait for an answer. Does not connect yet.
    ///
    /// Without a signer only anonymous requests are sent.
    #[must_use]
    pub fn new(url: &str, max_requests: usize, signer: Option<CallerSigner>) -> Self {
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
            signer,
        }
    }

    /// Sends a request without a body to `path`, which includes the query, on behalf of the caller. Every status is an
    /// answer, not an error.
    pub async fn forward<'a>(
        &self,
        method: &Method,
        path: &str,
        caller: &Caller,
        headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    ) -> Result<Response<ProxiedBody>, ApiError> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded)?;
        self.send(method, path, caller, headers, slot).await
    }

    async fn send<'a>(
        &self,
        method: &Method,
        path: &str,
        caller: &Caller,
        headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Response<ProxiedBody>, ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(value) = self.identify(caller, method, path)? {
            request = request.header(CALLER, value);
        }
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
            Ok(Ok(response)) if is_refusal(response.status()) => {
                Err(ApiError::Refused(response.status()))
            }
            Ok(Ok(response)) => Ok(response.map(|body| ProxiedBody::new(body, slot))),
        }
    }

    /// The header that names the caller; none for an anonymous one if nothing is signed.
    fn identify(
        &self,
        caller: &Caller,
        method: &Method,
        path: &str,
    ) -> Result<Option<HeaderValue>, ApiError> {
        let is_anonymous =
            caller.credential == Credential::None && caller.tenant.as_str() == ANONYMOUS_TENANT;
        match &self.signer {
            Some(signer) => Ok(Some(signer.sign(caller, method, path)?)),
            None if is_anonymous => Ok(None),
            None => Err(ApiError::NoSecret),
        }
    }

    /// Sends GET for `path` and reads the JSON answer; `None` if the API answers 404.
    ///
    /// The reflex itself needs the answer, for what the caller may do, so it is asked for with the scope `read` only.
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
        let reader = Caller {
            scopes: [Scope::Read].into_iter().collect(),
            ..caller.clone()
        };
        let response = self
            .send(&Method::GET, path, &reader, std::iter::empty(), slot)
            .await?;
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

/// Whether the API does not accept for whom the reflex asks. What the caller may do was checked before.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Formats an error with its causes: hyper's own message says little.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
