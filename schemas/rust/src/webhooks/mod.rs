//! `webhooks.yaml` as frozen types: who may send webhooks, how they are signed, and which task each event becomes.
//!
//! Owns the file's rules, the same as in Python's `octollm.topology.webhooks`. Reads no secret: the file only names
//! where secrets are.

mod scheme;
mod secret;

pub use scheme::{
    Algorithm, Encoding, EventLocation, Format, HeaderName, Hmac, Part, Prefix, Scheme,
    SecretEncoding, SharedSecret, Tolerance,
};
pub use secret::Secret;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use crate::events::{Kind, Name, Tenant, Text};
use crate::yaml::{self, ensure};

use scheme::{SchemeFields, SchemeName};

/// A delivery costs one HMAC of its body for each secret, before anyone knows who sent it.
const MAX_SECRETS: usize = 8;

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
    sources: IndexMap<String, SourceFields>,
}

/// One source as the file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceFields {
    description: String,
    scheme: SchemeName,
    tenant: Tenant,
    secrets: Vec<Secret>,
    tolerance_s: Option<u64>,
    hmac: Option<Hmac>,
    shared_secret: Option<SharedSecret>,
    event: Option<EventLocation>,
    events: IndexMap<String, Mapping>,
}

/// One sender.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub description: String,
    pub scheme: Scheme,
    /// Whose tasks its events become.
    pub tenant: Tenant,
    /// Where its secrets are; several while one replaces another.
    pub secrets: Vec<Secret>,
    /// Where the event's name is, if not where the scheme puts it.
    pub event: Option<EventLocation>,
    /// By the event's name as the sender writes it; what is not here is ignored.
    pub events: IndexMap<String, Mapping>,
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
    file.sources
        .into_iter()
        .map(|(name, fields)| {
            let source = check(&format!("sources.{name}"), &name, fields)?;
            Ok((name, source))
        })
        .collect()
}

fn check(at: &str, name: &str, fields: SourceFields) -> Result<Source, String> {
    ensure(name.parse::<Name>().is_ok(), || {
        format!("{at}: is no source name; use a lower-case letter, then letters, digits, _ and -")
    })?;
    ensure(!fields.secrets.is_empty(), || {
        format!("{at}.secrets: must name at least one, like env:GITHUB_WEBHOOK_SECRET")
    })?;
    ensure(fields.secrets.len() <= MAX_SECRETS, || {
        format!(
            "{at}.secrets: must name at most {MAX_SECRETS}; remove those that are no longer used"
        )
    })?;
    ensure(!fields.events.is_empty(), || {
        format!("{at}.events: must map at least one event")
    })?;
    for (event, mapping) in &fields.events {
        let at = format!("{at}.events.{event}");
        ensure(!event.is_empty(), || format!("{at}: an event has a name"))?;
        check_mapping(&at, mapping)?;
    }
    let scheme = SchemeFields {
        scheme: fields.scheme,
        tolerance_s: fields.tolerance_s,
        hmac: fields.hmac,
        shared_secret: fields.shared_secret,
    };
    let scheme = scheme.check(at)?;
    ensure(fields.event.is_some() || scheme.names_events(), || {
        format!("{at}.event: missing; say where the event's name is: header, pointer or name")
    })?;
    if let Some(EventLocation::Name(name)) = &fields.event {
        ensure(fields.events.contains_key(name), || {
            format!("{at}.event.name: {name} is no name under events; add it there or correct it")
        })?;
    }
    Ok(Source {
        description: fields.description,
        scheme,
        tenant: fields.tenant,
        secrets: fields.secrets,
        event: fields.event,
        events: fields.events,
    })
}

fn check_mapping(at: &str, mapping: &Mapping) -> Result<(), String> {
    for (place, values) in &mapping.only {
        let at = format!("{at}.only.{}", place.as_str());
        let plain = |value: &Value| !(value.is_array() || value.is_object() || value.is_null());
        ensure(!values.is_empty() && values.iter().all(plain), || {
            format!("{at}: must list at least one text, number or truth value")
        })?;
    }
    for name in &mapping.optional {
        ensure(mapping.input.contains_key(name), || {
            format!("{at}.optional: {name} is no name under input; add it there or remove it here")
        })?;
    }
    Ok(())
}
