//! `webhooks.yaml` as frozen types: who may send webhooks, how they are signed, and which task each event becomes.
//!
//! Owns the file's rules, the same as in Python's `octollm.topology.webhooks`. Reads no secret: the file only names
//! where secrets lie.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use crate::events::{Kind, Name, Tenant, Text};
use crate::yaml::{self, ensure};

/// Why the file was refused; the text names the place and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct WebhooksError {
    pub path: PathBuf,
    pub message: String,
}

/// Every source by its name, which is the last part of its address.
pub type Sources = IndexMap<String, Source>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    sources: Sources,
}

/// One sender.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub description: String,
    pub scheme: Scheme,
    /// Whose tasks its events become.
    pub tenant: Tenant,
    /// Where its secrets lie; several while one replaces another.
    pub secrets: Vec<Secret>,
    /// By the event's name as the sender writes it; what is not here is ignored.
    pub events: IndexMap<String, Mapping>,
}

/// How a sender signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    Github,
    Standard,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Secret {
    Env(String),
    File(PathBuf),
}

impl TryFrom<String> for Secret {
    type Error = String;

    // Never quotes the text: it may be the secret itself, written here by mistake.
    fn try_from(text: String) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("env:") {
            let plain = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !plain {
                return Err("env: must be followed by the name of a variable".to_owned());
            }
            // Such variables are settings, and an unknown setting is refused.
            if name.to_ascii_uppercase().starts_with("OCTOLLM_") {
                return Err(
                    "must not name a variable that starts with OCTOLLM_; call it otherwise"
                        .to_owned(),
                );
            }
            return Ok(Self::Env(name.to_owned()));
        }
        match text.strip_prefix("file:") {
            Some(path) if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            _ => Err(
                "must be env:NAME or file:/absolute/path; the secret itself has no place here"
                    .to_owned(),
            ),
        }
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(out, "the environment variable {name}"),
            Self::File(path) => write!(out, "the file {}", path.display()),
        }
    }
}

/// The task that one kind of event becomes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    pub kind: Kind,
    pub goal: Text<1, 10_000>,
    /// Where in the payload which values must stand; any other event is ignored.
    #[serde(default)]
    pub only: IndexMap<Pointer, Vec<Value>>,
    /// The task's input: each name with the place of its value in the payload.
    pub input: IndexMap<String, Pointer>,
    /// Names of the input whose value may be missing or null; they are left out then.
    #[serde(default)]
    pub optional: Vec<String>,
}

/// A place in the payload, as RFC 6901 writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer(String);

impl Pointer {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands there; null counts as nothing.
    #[must_use]
    pub fn find<'a>(&self, payload: &'a Value) -> Option<&'a Value> {
        payload.pointer(&self.0).filter(|value| !value.is_null())
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let escaped = text
            .split('~')
            .skip(1)
            .all(|rest| rest.starts_with(['0', '1']));
        if text.starts_with('/') && escaped {
            Ok(Self(text))
        } else {
            Err("must be a JSON pointer, like /issue/title".to_owned())
        }
    }
}

/// Reads and checks the file.
pub fn load(path: &Path) -> Result<Sources, WebhooksError> {
    let refused = |message| WebhooksError {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        refused(format!(
            "cannot be read ({error}); set OCTOLLM_WEBHOOKS_FILE to a file of webhook sources"
        ))
    })?;
    parse(&text).map_err(refused)
}

/// `load` without reading the file itself.
pub fn parse(text: &str) -> Result<Sources, String> {
    let file: File = yaml::read(text, "version: 1", |_| None)?;
    if file.version != 1 {
        return Err(format!(
            "version: is {}, this program reads version 1",
            file.version
        ));
    }
    for (name, source) in &file.sources {
        check(&format!("sources.{name}"), name, source)?;
    }
    Ok(file.sources)
}

fn check(at: &str, name: &str, source: &Source) -> Result<(), String> {
    ensure(name.parse::<Name>().is_ok(), || {
        format!("{at}: is no source name; use a lower-case letter, then letters, digits, _ and -")
    })?;
    ensure(!source.secrets.is_empty(), || {
        format!("{at}.secrets: must name at least one, like env:GITHUB_WEBHOOK_SECRET")
    })?;
    ensure(!source.events.is_empty(), || {
        format!("{at}.events: must map at least one event")
    })?;
    for (event, mapping) in &source.events {
        let at = format!("{at}.events.{event}");
        ensure(!event.is_empty(), || format!("{at}: an event has a name"))?;
        for (place, values) in &mapping.only {
            let at = format!("{at}.only.{}", place.as_str());
            let plain = |value: &Value| !(value.is_array() || value.is_object() || value.is_null());
            ensure(!values.is_empty() && values.iter().all(plain), || {
                format!("{at}: must list at least one text, number or truth value")
            })?;
        }
        for name in &mapping.optional {
            ensure(mapping.input.contains_key(name), || {
                format!(
                    "{at}.optional: {name} is no name under input; add it there or remove it here"
                )
            })?;
        }
    }
    Ok(())
}
