//! `quotas.yaml` as frozen types: how much each tenant and each API key may ask for.
//!
//! Owns the file's rules. Counts nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::events::Tenant;
use crate::yaml::{self, ensure};

/// The largest number that a rate, a burst or a count may be. Redis computes with doubles, which are exact up to here.
const MAX_NUMBER: u64 = 1_000_000_000_000;
/// The smallest rate: one in an hour.
const MIN_RATE: f64 = 1.0 / 3600.0;

/// The id of an API key is so many characters of base32.
const KEY_ID_LENGTH: usize = 12;

/// Why the file was refused; the text names the place and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct QuotasError {
    pub path: PathBuf,
    pub message: String,
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quotas {
    /// For every tenant that `tenants` does not name.
    pub default: Option<Limits>,
    pub tenants: HashMap<Tenant, Limits>,
    /// By the id of the key. A key's limits hold in addition to its tenant's.
    pub keys: HashMap<String, Limits>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    #[serde(default)]
    default: Option<Limits>,
    #[serde(default)]
    tenants: HashMap<Tenant, Limits>,
    #[serde(default)]
    keys: HashMap<String, Limits>,
}

/// The limits of one tenant or key; what is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Submissions, whichever way they arrive.
    #[serde(default)]
    pub requests: Option<Rate>,
    /// Every other request: reads and commands.
    #[serde(default)]
    pub reads: Option<Rate>,
    /// Bytes of the bodies of submissions, as they were received.
    #[serde(default)]
    pub bytes: Option<Rate>,
    /// Tasks that were accepted and have not ended.
    #[serde(default)]
    pub tasks: Option<u64>,
}

impl Limits {
    fn rates(&self) -> [(&'static str, Option<Rate>); 3] {
        [
            ("requests", self.requests),
            ("reads", self.reads),
            ("bytes", self.bytes),
        ]
    }
}

/// A rate and how much may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(from = "RateOfFile")]
pub struct Rate {
    /// On average, per second.
    pub per_s: f64,
    /// At once, after a pause.
    pub burst: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateOfFile {
    per_s: f64,
    /// Absent: as much as in one second.
    #[serde(default)]
    burst: Option<u64>,
}

impl From<RateOfFile> for Rate {
    fn from(rate: RateOfFile) -> Self {
        // What does not fit is refused by `check`.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let one_second = rate.per_s.ceil().max(1.0) as u64;
        Self {
            per_s: rate.per_s,
            burst: rate.burst.unwrap_or(one_second),
        }
    }
}

/// Reads and checks the file. `body_limit`: the largest body in bytes that the program accepts.
pub fn load(path: &Path, body_limit: usize) -> Result<Quotas, QuotasError> {
    let refused = |message| QuotasError {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        refused(format!(
            "cannot be read ({error}); set OCTOLLM_QUOTAS_FILE to a file of quotas, or leave it empty for none"
        ))
    })?;
    parse(&text, body_limit).map_err(refused)
}

/// `load` without reading the file itself.
pub fn parse(text: &str, body_limit: usize) -> Result<Quotas, String> {
    let file: File = yaml::read(text, "version: 1", |_| None)?;
    if file.version != 1 {
        return Err(format!(
            "version: is {}, this program reads version 1",
            file.version
        ));
    }
    if let Some(limits) = &file.default {
        check("default", limits, body_limit)?;
    }
    for (tenant, limits) in &file.tenants {
        check(&format!("tenants.{}", tenant.as_str()), limits, body_limit)?;
    }
    for (key, limits) in &file.keys {
        let at = format!("keys.{key}");
        let base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        ensure(
            key.len() == KEY_ID_LENGTH && key.bytes().all(base32),
            || format!("{at}: is not the id of an API key; `octollm keys ls` shows them"),
        )?;
        check(&at, limits, body_limit)?;
    }
    Ok(Quotas {
        default: file.default,
        tenants: file.tenants,
        keys: file.keys,
    })
}

fn check(at: &str, limits: &Limits, body_limit: usize) -> Result<(), String> {
    let known = limits.rates().iter().any(|(_, rate)| rate.is_some()) || limits.tasks.is_some();
    ensure(known, || {
        format!("{at}: must limit something: requests, reads, bytes or tasks")
    })?;
    for (name, rate) in limits.rates() {
        let Some(rate) = rate else { continue };
        #[allow(clippy::cast_precision_loss)] // exact up to here
        let most = MAX_NUMBER as f64;
        ensure((MIN_RATE..=most).contains(&rate.per_s), || {
            format!("{at}.{name}.per_s: must be from {MIN_RATE:.5} to {MAX_NUMBER}")
        })?;
        ensure((1..=MAX_NUMBER).contains(&rate.burst), || {
            format!("{at}.{name}.burst: must be from 1 to {MAX_NUMBER}")
        })?;
    }
    if let Some(bytes) = limits.bytes {
        ensure(bytes.burst >= body_limit as u64, || {
            format!(
                "{at}.bytes.burst: must be at least {body_limit}, or a body of that size, which \
                 reflex.body_limit_bytes allows, could never be sent"
            )
        })?;
    }
    if let Some(tasks) = limits.tasks {
        ensure((1..=MAX_NUMBER).contains(&tasks), || {
            format!("{at}.tasks: must be from 1 to {MAX_NUMBER}")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{parse, Quotas, Rate};

    const BODY_LIMIT: usize = 1000;

    #[test]
    fn a_file_names_limits_for_everyone_for_tenants_and_for_keys() {
        let text = "version: 1\ndefault: {requests: {per_s: 0.5}}\ntenants:\n  acme: {bytes: {per_s: 100, burst: 2000}}\n\
                    keys:\n  abcdefghijkl: {tasks: 3}\n";
        let quotas = parse(text, BODY_LIMIT).unwrap();
        let rate = |per_s, burst| Some(Rate { per_s, burst });
        assert_eq!(quotas.default.unwrap().requests, rate(0.5, 1));
        let acme = &quotas.tenants[&"acme".parse().unwrap()];
        assert_eq!((acme.bytes, acme.requests), (rate(100.0, 2000), None));
        assert_eq!(quotas.keys["abcdefghijkl"].tasks, Some(3));
        assert_eq!(parse("version: 1", BODY_LIMIT).unwrap(), Quotas::default());
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_place() {
        for (text, start) in [
            ("", "the file: must be a mapping"),
            ("version: 2", "version: is 2"),
            ("version: 1\ndefaults: {}", "defaults: unknown key"),
            ("version: 1\ndefault: {}", "default: must limit something"),
            (
                "version: 1\ndefault: {request: 1}",
                "default.request: unknown key",
            ),
            ("version: 1\ndefault: {requests: 5}", "default.requests"),
            (
                "version: 1\ndefault: {requests: {burst: 5}}",
                "default.requests",
            ),
            (
                "version: 1\ndefault: {requests: {per_s: 0}}",
                "default.requests.per_s: must be from",
            ),
            (
                "version: 1\ndefault: {requests: {per_s: .nan}}",
                "default.requests.per_s: must be from",
            ),
            (
                "version: 1\ndefault: {requests: {per_s: .inf}}",
                "default.requests.per_s: must be from",
            ),
            (
                "version: 1\ndefault: {reads: {per_s: 1, burst: 0}}",
                "default.reads.burst: must be from 1",
            ),
            (
                "version: 1\ndefault: {bytes: {per_s: 900}}",
                "default.bytes.burst: must be at least 1000",
            ),
            (
                "version: 1\ntenants: {acme: {tasks: 0}}",
                "tenants.acme.tasks: must be from 1",
            ),
            ("version: 1\ntenants: {Acme!: {tasks: 1}}", "tenants"),
            (
                "version: 1\ntenants: {a: {tasks: 1}, a: {tasks: 2}}",
                "not valid YAML",
            ),
            (
                "version: 1\nkeys: {abcdefghijk1: {tasks: 1}}",
                "keys.abcdefghijk1: is not the id of an API key",
            ),
        ] {
            let error = parse(text, BODY_LIMIT).unwrap_err();
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
    }
}
