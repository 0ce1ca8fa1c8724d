//! The way to the Python API, which answers from Postgres. Plain HTTP inside one network; who asks is said in a header
//! that this side alone sets.

mod held;

pub use held::Held;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use contracts::events::Tenant;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

const CONNECT: Duration = Duration::from_secs(2);
/// Longest until an answer begins.
const HEAD: Duration = Duration::from_secs(10);
/// Longest until an answer that is read whole has come.
const WHOLE: Duration = Duration::from_secs(15);
/// Below the keep-alive of the API's server, so that no request meets a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(3);
/// Largest answer that is read whole; 500 events of the longest kind fit.
const LARGEST: usize = 16 * 1024 * 1024;
const TENANT: HeaderName = HeaderName::from_static("octollm-tenant");

/// Why the API did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the API cannot be used now: {0}")]
    Away(String),
    /// As many reads wait for it as the settings allow.
    #[error("too many reads wait for the API")]
    Crowded,
}

/// The API at its address.
pub struct Api {
    client: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    slots: Arc<Semaphore>,
}

impl Api {
    /// `url` is `http://host:port`; connects to nothing yet.
    #[must_use]
    pub fn new(url: &str, most: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self {
            client,
            base: url.trim_end_matches('/').to_owned(),
            slots: Arc::new(Semaphore::new(most)),
        }
    }

    /// Asks for `path` with its query in the tenant's name; whatever status comes is an answer.
    pub async fn get<'a>(
        &self,
        path: &str,
        tenant: &Tenant,
        headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    ) -> Result<Response<Held>, ApiError> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ApiError::Crowded)?;
        let mut request =
            Request::get(format!("{}{path}", self.base)).header(TENANT, tenant.as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| ApiError::Away(error.to_string()))?;
        match tokio::time::timeout(HEAD, self.client.request(request)).await {
            Err(_) => Err(ApiError::Away(format!(
                "no answer within {} s",
                HEAD.as_secs()
            ))),
            Ok(Err(error)) => Err(ApiError::Away(causes(&error))),
            Ok(Ok(response)) => Ok(response.map(|body| Held::new(body, slot))),
        }
    }

    /// Reads a JSON answer whole; none where the API knows nothing of it.
    pub async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        tenant: &Tenant,
    ) -> Result<Option<T>, ApiError> {
        let response = self.get(path, tenant, std::iter::empty()).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(ApiError::Away(format!("it answered {status}"))),
        }
        let whole = Limited::new(response.into_body(), LARGEST).collect();
        let body = match tokio::time::timeout(WHOLE, whole).await {
            Err(_) => {
                return Err(ApiError::Away(
                    "its answer did not come to an end".to_owned(),
                ))
            }
            Ok(Err(error)) => return Err(ApiError::Away(error.to_string())),
            Ok(Ok(body)) => body.to_bytes(),
        };
        serde_json::from_slice(&body).map(Some).map_err(|error| {
            ApiError::Away(format!("its answer is not what it should be: {error}"))
        })
    }
}

/// hyper's own sentence says little; the cause is below.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        below = cause.source();
    }
    text
}
