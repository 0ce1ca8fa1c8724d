//! Keeps the keys of one issuer: reads them from a file or over HTTPS, again and again, and when a token names an unknown one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use contracts::credentials::{Algorithm as Pinned, JwksSource};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Mutex;

use super::key_set::KeySet;

/// How often the keys are read.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// How often an unknown key may cause a read.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// How long the last keys count while the issuer cannot be reached.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long one read may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 256 * 1024;

type HttpsClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// What was read, and when.
struct Known {
    keys: KeySet,
    read_at: Instant,
}

/// The newest keys of one issuer.
pub(super) struct Jwks {
    source: JwksSource,
    pinned: Vec<Pinned>,
    client: Option<HttpsClient>,
    known: ArcSwapOption<Known>,
    /// When the last read began, and whether it failed. Locked while one is on its way.
    attempt: Mutex<Option<(Instant, bool)>>,
}

/// Why there is no key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has no such key.
    Unknown,
    /// Nobody can say whether it has.
    Unavailable,
}

impl Jwks {
    /// Does not connect yet. Fails if the system's certificates cannot be read.
    pub fn new(source: JwksSource, pinned: Vec<Pinned>) -> std::io::Result<Self> {
        let client = match &source {
            JwksSource::File(_) => None,
            JwksSource::Https(_) => Some(https_client()?),
        };
        Ok(Self {
            source,
            pinned,
            client,
            known: ArcSwapOption::empty(),
            attempt: Mutex::new(None),
        })
    }

    /// Reads the keys from time to time, as long as the process runs.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
        loop {
            ticks.tick().await;
            self.read(Duration::ZERO).await;
        }
    }

    /// Calls `use_key` with the key; reads the keys again if it is unknown.
    pub async fn with_key<T>(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        use_key: impl FnOnce(&DecodingKey) -> T,
    ) -> Result<T, NoKey> {
        let mut known = self.known.load_full();
        let has_key = |known: &Option<Arc<Known>>| {
            let keys = known.as_ref().map(|known| &known.keys);
            keys.is_some_and(|keys| keys.find(id, algorithm).is_some())
        };
        let mut failed = false;
        if !has_key(&known) {
            failed = self.read(MIN_INTERVAL).await;
            known = self.known.load_full();
        }
        let known = known.filter(|known| known.read_at.elapsed() <= MAX_AGE);
        match known
            .as_ref()
            .and_then(|known| known.keys.find(id, algorithm))
        {
            Some(key) => Ok(use_key(key)),
            None if failed || known.is_none() => Err(NoKey::Unavailable),
            None => Err(NoKey::Unknown),
        }
    }

    /// Reads the keys unless the last read began less than `interval` ago. Returns whether the last read failed.
    async fn read(&self, interval: Duration) -> bool {
        let mut attempt = self.attempt.lock().await;
        if let Some((begun, failed)) = *attempt {
            if begun.elapsed() < interval {
                return failed;
            }
        }
        let begun = Instant::now();
        let fetched = tokio::time::timeout(TIMEOUT, self.fetch())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())));
        let parsed = fetched.and_then(|json| KeySet::parse(&json, &self.pinned));
        let failed = parsed.is_err();
        match parsed {
            Ok(keys) => {
                let read_at = Instant::now();
                self.known.store(Some(Arc::new(Known { keys, read_at })));
            }
            Err(reason) => {
                let source = self.source.to_string();
                tracing::warn!(
                    source,
                    reason,
                    "cannot read the keys of an issuer; the last ones count for a day"
                );
            }
        }
        *attempt = Some((begun, failed));
        failed
    }

    async fn fetch(&self) -> Result<Bytes, String> {
        let url = match (&self.source, &self.client) {
            (JwksSource::Https(url), Some(client)) => (url, client),
            (JwksSource::File(path), _) => {
                let read = tokio::fs::read(path).await;
                return read.map(Bytes::from).map_err(|error| error.to_string());
            }
            (JwksSource::Https(_), None) => return Err("there is no client".to_owned()),
        };
        let (url, client) = url;
        let request = Request::get(url).body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let response = client.request(request).await;
        let response = response.map_err(|error| crate::upstream::with_causes(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect();
        let body = body.await.map_err(|error| error.to_string())?;
        Ok(body.to_bytes())
    }
}

fn https_client() -> std::io::Result<HttpsClient> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
        .https_only()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}
