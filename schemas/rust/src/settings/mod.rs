//! Every setting of the Rust programs, read once at start; the twin of Python's `octollm.settings.loader`.
//!
//! Later ones win: the commented default file that ships with `OctoLLM` (the only place with defaults), the file named
//! by `OCTOLLM_CONFIG`, the environment (`OCTOLLM_<SECTION>_<KEY>`). Unknown keys are refused. Connects to nothing.

mod checks;
mod layers;
mod share;

pub use share::share_dir;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

const DEFAULTS: &str = include_str!("../../../../workers/octollm/settings/octollm.default.toml");

/// A setting that cannot be used; the text names it and what to do, never its value (URLs carry credentials).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    pub redis: Redis,
    pub reflex: Reflex,
    pub executor: Executor,
    pub worker: Worker,
    pub api: Api,
    pub webhooks: Webhooks,
    pub quotas: Quotas,
    pub log: Log,
    pub topology: TopologyFile,
}

#[derive(Clone, Deserialize)]
pub struct Redis {
    pub url: String,
    /// Certificates in PEM that sign the server's; empty: the system's.
    pub ca_file: String,
    pub connect_timeout_s: f64,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may carry a password.
        out.debug_struct("Redis")
            .field("ca_file", &self.ca_file)
            .field("connect_timeout_s", &self.connect_timeout_s)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Reflex {
    pub listen: String,
    pub anonymous: Anonymous,
    /// Issuers of tokens; empty: only API keys are accepted.
    pub credentials_file: String,
    pub url: String,
    pub body_limit_bytes: usize,
    pub max_connections: usize,
    /// 0: no limit.
    pub max_connections_per_client: usize,
    pub max_submissions: usize,
    /// The certificate of the port, in PEM; empty: no TLS.
    pub tls_certificate_file: String,
    pub tls_key_file: String,
    /// Separated by commas; see `cors_origins()`.
    pub cors_origins: String,
    pub header_timeout_s: u64,
    pub idle_timeout_s: u64,
    pub body_timeout_s: u64,
    pub idempotency_ttl_s: u64,
    pub durability: Durability,
    pub durability_replicas: usize,
    pub durability_wait_s: u64,
    pub drain_s: u64,
    pub max_event_streams: usize,
    pub max_forwards: usize,
    pub consumer: String,
}

/// Who may act as tenant `default` without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anonymous {
    /// Anyone, while the reflex listens on a loopback address.
    Auto,
    /// Anyone.
    On,
    /// Nobody.
    Off,
}

impl Reflex {
    /// The origins whose pages may use the HTTP API.
    pub fn cors_origins(&self) -> impl Iterator<Item = &str> {
        let origins = self.cors_origins.split(',').map(str::trim);
        origins.filter(|origin| !origin.is_empty())
    }
}

/// What a 202 needs, as the deployment wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Whatever Redis is configured for.
    Auto,
    Fsync,
    Replicated,
    Stored,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Executor {
    pub metrics_listen: String,
    pub drain_s: u64,
    pub workspace_dir: String,
    pub python: String,
    pub min_isolation: MinIsolation,
    pub consumer: String,
}

/// The settings of every worker, the executor included: the circuit breaker.
#[derive(Debug, Clone, Deserialize)]
pub struct Worker {
    /// 0: never.
    pub circuit_breaker_tasks: usize,
    pub circuit_breaker_cooldown_s: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinIsolation {
    Namespaces,
    Landlock,
}

/// The Python API, as far as the reflex needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct Api {
    /// Empty: there is none.
    pub url: String,
    /// Signs for whom the reflex forwards a request; empty: nothing is signed.
    pub secret: Secret,
}

/// A text that no log and no error shows. Only the environment may set it.
#[derive(Clone, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Returns the text itself; never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("***")
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Webhooks {
    /// Empty: the file that ships with `OctoLLM`.
    pub file: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Quotas {
    /// Empty: there are none.
    pub file: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Log {
    pub level: Level,
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    Console,
    Auto,
}

#[derive(Debug, Clone, Deserialize)]
pub struct TopologyFile {
    pub file: String,
}

/// Reads all three places.
pub fn load() -> Result<Settings, SettingsError> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        // A variable of ours that is not UTF-8 is refused below by its replacement character.
        Some((
            name.into_string().ok()?,
            value.to_string_lossy().into_owned(),
        ))
    });
    load_from(&variables.collect())
}

/// `load` with the environment passed in.
pub fn load_from(variables: &BTreeMap<String, String>) -> Result<Settings, SettingsError> {
    let mut table: Table = DEFAULTS
        .parse()
        .map_err(|error| SettingsError(format!("octollm.default.toml: {error}")))?;
    layers::merge(&mut table, variables)?;
    let settings: Settings =
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let path = error.path().to_string();
            SettingsError(format!(
                "setting {path} is refused: {}",
                rule(&error.into_inner().to_string())
            ))
        })?;
    checks::check(&settings)?;
    Ok(settings)
}

/// The rule that a value breaks, from the error of its type.
fn rule(error: &str) -> &str {
    // All integers are unsigned.
    if error.starts_with("invalid value: integer `-") {
        return "must be 0 or more";
    }
    error.lines().next().unwrap_or(error)
}

/// An address for logs: without user and password.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split(['/', '?']).next().unwrap_or(rest);
            match authority.rfind('@') {
                Some(at) => format!("{scheme}://***@{}", hide_query(&rest[at + 1..])),
                None => format!("{scheme}://{}", hide_query(rest)),
            }
        }
        None => "(no URL)".to_owned(),
    }
}

fn hide_query(rest: &str) -> &str {
    rest.split('?').next().unwrap_or(rest)
}

impl Settings {
    /// The topology file to load: the configured one, or the one that ships with `OctoLLM`.
    pub fn topology_path(&self) -> Result<PathBuf, SettingsError> {
        if self.topology.file.is_empty() {
            Ok(share_dir()?.join("streams.yaml"))
        } else {
            Ok(PathBuf::from(&self.topology.file))
        }
    }

    /// The file of webhook sources to load: the configured one, or the one that ships with `OctoLLM`.
    pub fn webhooks_path(&self) -> Result<PathBuf, SettingsError> {
        if self.webhooks.file.is_empty() {
            Ok(share_dir()?.join("webhooks.yaml"))
        } else {
            Ok(PathBuf::from(&self.webhooks.file))
        }
    }

    /// The file of quotas to load; `None` if there are no quotas.
    #[must_use]
    pub fn quotas_path(&self) -> Option<PathBuf> {
        let file = &self.quotas.file;
        (!file.is_empty()).then(|| PathBuf::from(file))
    }

    /// The folder that holds `schemas/`: the configured topology's own, where it has one, else `share_dir`.
    pub fn share_dir(&self) -> Result<PathBuf, SettingsError> {
        if !self.topology.file.is_empty() {
            let file = Path::new(&self.topology.file);
            let folder = file.parent().unwrap_or(Path::new(""));
            if folder.join("schemas/events").is_dir() {
                return Ok(folder.to_owned());
            }
        }
        share_dir()
    }
}
