//! Every setting of the Rust programs, read once at start; the twin of Python's `octollm.runtime.settings`.
//!
//! Later ones win: the commented default file that ships with `OctoLLM` (the only place with defaults), the file named
//! by `OCTOLLM_CONFIG`, the environment (`OCTOLLM_<SECTION>_<KEY>`). Unknown keys are refused. Connects to nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

const DEFAULTS: &str = include_str!("../../../workers/octollm/runtime/octollm.default.toml");
const PREFIX: &str = "OCTOLLM_";
const CONFIG: &str = "OCTOLLM_CONFIG";
/// Known to the Python side only, but set for all processes.
const OTHERS: [&str; 2] = [CONFIG, "OCTOLLM_DEBUG"];

/// A setting that cannot be used; the text names it and what to do, never its value (URLs carry credentials).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    pub redis: Redis,
    pub reflex: Reflex,
    pub executor: Executor,
    pub api: Api,
    pub webhooks: Webhooks,
    pub log: Log,
    pub topology: TopologyFile,
}

#[derive(Clone, Deserialize)]
pub struct Redis {
    pub url: String,
    pub connect_timeout_s: f64,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may carry a password.
        out.debug_struct("Redis")
            .field("connect_timeout_s", &self.connect_timeout_s)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Reflex {
    pub listen: String,
    /// Lets `listen` be another address than a loopback one, although there are no credentials.
    pub trust_network: bool,
    pub url: String,
    pub body_limit_bytes: usize,
    pub max_connections: usize,
    pub header_timeout_s: u64,
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
}

#[derive(Debug, Clone, Deserialize)]
pub struct Webhooks {
    /// Empty: the file that ships with `OctoLLM`.
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
    if let Some(path) = variables.get(CONFIG).filter(|path| !path.is_empty()) {
        merge_file(&mut table, Path::new(path))?;
    }
    merge_environment(&mut table, variables)?;
    let settings: Settings =
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let path = error.path().to_string();
            SettingsError(format!(
                "setting {path} is refused: {}",
                first_line(&error.into_inner().to_string())
            ))
        })?;
    check(&settings)?;
    Ok(settings)
}

fn merge_file(table: &mut Table, path: &Path) -> Result<(), SettingsError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        SettingsError(format!(
            "the settings file {shown} cannot be read ({error}); correct {CONFIG} or unset it"
        ))
    })?;
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        SettingsError(format!(
            "the settings file {shown} is not valid TOML: {}",
            error.message()
        ))
    })?;
    for (section, content) in file {
        let Some(Value::Table(known)) = table.get_mut(&section) else {
            return Err(SettingsError(format!(
                "unknown section [{section}] in {shown}; remove or correct it"
            )));
        };
        let Value::Table(content) = content else {
            return Err(SettingsError(format!(
                "{section} in {shown} must be a section: write [{section}]"
            )));
        };
        for (key, value) in content {
            let Some(old) = known.get_mut(&key) else {
                return Err(SettingsError(format!(
                    "unknown key {section}.{key} in {shown}; remove or correct it"
                )));
            };
            let widened = matches!((&*old, &value), (Value::Float(_), Value::Integer(_)));
            if !old.same_type(&value) && !widened {
                return Err(SettingsError(format!(
                    "{section}.{key} in {shown} must be a {}",
                    old.type_str()
                )));
            }
            *old = value;
        }
    }
    Ok(())
}

fn merge_environment(
    table: &mut Table,
    variables: &BTreeMap<String, String>,
) -> Result<(), SettingsError> {
    for (name, text) in variables {
        // Upper case on both sides: the Python library reads variables in any case.
        let upper = name.to_ascii_uppercase();
        let Some(rest) = upper.strip_prefix(PREFIX) else {
            continue;
        };
        if OTHERS.contains(&upper.as_str()) {
            continue;
        }
        let found = rest.split_once('_').and_then(|(section, key)| {
            table
                .get_mut(&section.to_ascii_lowercase())?
                .as_table_mut()?
                .get_mut(&key.to_ascii_lowercase())
        });
        let Some(old) = found else {
            return Err(SettingsError(format!(
                "unknown environment variable {name}; unset or correct it"
            )));
        };
        let refused = || SettingsError(format!("{name} is refused: must be a {}", old.type_str()));
        let value = match old {
            Value::Integer(_) => Value::Integer(text.trim().parse().map_err(|_| refused())?),
            Value::Float(_) => Value::Float(text.trim().parse().map_err(|_| refused())?),
            Value::Boolean(_) => Value::Boolean(
                text.trim()
                    .to_ascii_lowercase()
                    .parse()
                    .map_err(|_| refused())?,
            ),
            _ => Value::String(text.clone()),
        };
        *old = value;
    }
    Ok(())
}

fn check(settings: &Settings) -> Result<(), SettingsError> {
    let redis = &settings.redis;
    let known = ["redis://", "rediss://", "unix://"]
        .iter()
        .any(|scheme| redis.url.starts_with(scheme));
    ensure(
        known,
        "redis.url",
        "must start with redis://, rediss:// or unix://, like redis://127.0.0.1:6379/0",
    )?;
    ensure(
        redis.connect_timeout_s > 0.0 && redis.connect_timeout_s <= 60.0,
        "redis.connect_timeout_s",
        "must be above 0 and at most 60",
    )?;
    let reflex = &settings.reflex;
    let executor = &settings.executor;
    ensure(
        (1024..=64 * 1024 * 1024).contains(&reflex.body_limit_bytes),
        "reflex.body_limit_bytes",
        "must be from 1024 to 67108864",
    )?;
    ensure(
        reflex.max_connections >= 1,
        "reflex.max_connections",
        "must be at least 1",
    )?;
    for (name, value) in [
        ("reflex.max_event_streams", reflex.max_event_streams),
        ("reflex.max_forwards", reflex.max_forwards),
    ] {
        ensure(
            (1..=100_000).contains(&value),
            name,
            "must be from 1 to 100000",
        )?;
    }
    let api = &settings.api.url;
    ensure(
        api.is_empty() || is_plain_http(api),
        "api.url",
        "must be http://host:port without a path, like http://127.0.0.1:8081; \
         the reflex reaches the API inside one network, without TLS",
    )?;
    ensure(
        reflex.idempotency_ttl_s >= 1,
        "reflex.idempotency_ttl_s",
        "must be at least 1",
    )?;
    ensure(
        (1..=16).contains(&reflex.durability_replicas),
        "reflex.durability_replicas",
        "must be from 1 to 16",
    )?;
    for (name, value) in [
        ("reflex.header_timeout_s", reflex.header_timeout_s),
        ("reflex.body_timeout_s", reflex.body_timeout_s),
        ("reflex.drain_s", reflex.drain_s),
        ("reflex.durability_wait_s", reflex.durability_wait_s),
        ("executor.drain_s", executor.drain_s),
    ] {
        ensure(
            (1..=86_400).contains(&value),
            name,
            "must be from 1 to 86400",
        )?;
    }
    for (name, value) in [
        ("reflex.listen", &reflex.listen),
        ("executor.metrics_listen", &executor.metrics_listen),
    ] {
        let valid = value.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && (host.starts_with('[') == host.ends_with(']'))
                && (host.starts_with('[') || !host.contains(':'))
                && port.parse::<u16>().is_ok()
        });
        ensure(
            valid,
            name,
            "must be host:port with a port from 0 to 65535, like 127.0.0.1:8080",
        )?;
    }
    for (name, value) in [
        ("reflex.consumer", &reflex.consumer),
        ("executor.consumer", &executor.consumer),
    ] {
        let valid = value.len() <= 128
            && value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte));
        ensure(
            valid,
            name,
            "must be at most 128 letters, digits, ., _, : or -",
        )?;
    }
    Ok(())
}

/// `http://host` or `http://host:port`, with or without a slash at its end.
fn is_plain_http(url: &str) -> bool {
    url.strip_prefix("http://").is_some_and(|rest| {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        !rest.is_empty()
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    })
}

fn ensure(holds: bool, key: &str, must: &str) -> Result<(), SettingsError> {
    if holds {
        Ok(())
    } else {
        Err(SettingsError(format!("setting {key} is refused: {must}")))
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
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

/// The folder with `streams.yaml` and `schemas/`: where this program was installed, the checkout that it was built in, or
/// the checkout that it was started in.
pub fn share_dir() -> Result<PathBuf, SettingsError> {
    let mut looked_at = Vec::new();
    if let Ok(program) = std::env::current_exe() {
        for folder in program.ancestors().skip(1) {
            looked_at.push(folder.join("share/octollm"));
            looked_at.push(folder.to_owned());
        }
    }
    if let Ok(current) = std::env::current_dir() {
        looked_at.extend(current.ancestors().map(Path::to_owned));
    }
    find_share(&looked_at)
}

/// The first of the candidates that holds what is needed.
fn find_share(candidates: &[PathBuf]) -> Result<PathBuf, SettingsError> {
    let complete = |folder: &&PathBuf| {
        folder.join("streams.yaml").is_file() && folder.join("schemas/events").is_dir()
    };
    candidates
        .iter()
        .find(complete)
        .cloned()
        .ok_or_else(|| {
            let shown: Vec<String> = candidates
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            SettingsError(format!(
                "no folder with streams.yaml and schemas/events was found; looked at {}; \
                 install OctoLLM again, or set OCTOLLM_TOPOLOGY_FILE to a streams.yaml beside its schemas",
                shown.join(", ")
            ))
        })
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
