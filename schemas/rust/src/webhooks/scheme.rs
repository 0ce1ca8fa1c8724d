//! The signature schemes of `webhooks.yaml` and their options. Reads no secret and verifies nothing.

use serde::Deserialize;

use super::Pointer;
use crate::yaml::ensure;

/// How far a signed time may be from the present, in either direction, if a source does not say otherwise.
const DEFAULT_TOLERANCE_S: u64 = 300;
const MAX_TOLERANCE_S: u64 = 3600;
const MAX_PREFIX_CHARS: usize = 64;

/// How a sender signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks.
    Standard(Tolerance),
    Github,
    Gitlab(Tolerance),
    Stripe(Tolerance),
    Slack(Tolerance),
    Hmac(Hmac, Tolerance),
    SharedSecret(SharedSecret),
}

/// How far a signed time may be from the present, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    pub seconds: u64,
}

/// A sender's own HMAC.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hmac {
    /// The header with the signature.
    pub header: HeaderName,
    /// The text before the signature in its header.
    #[serde(default)]
    pub prefix: Prefix,
    #[serde(default)]
    pub encoding: Encoding,
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How the secrets are written.
    #[serde(default)]
    pub secret_encoding: SecretEncoding,
    /// The header with the signed time, in seconds since 1970.
    pub timestamp_header: Option<HeaderName>,
    /// The header with the signed id of the delivery.
    pub id_header: Option<HeaderName>,
    #[serde(default)]
    pub format: Format,
}

/// A secret that the sender puts into a header as it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedSecret {
    pub header: HeaderName,
    /// The text before the secret in its header.
    #[serde(default)]
    pub prefix: Prefix,
}

/// How a signature is written in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    #[default]
    Hex,
    Base64,
    Base64url,
}

/// How a secret is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretEncoding {
    /// The key is the text itself.
    #[default]
    Plain,
    Hex,
    Base64,
    Base64url,
}

/// The hash function of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    Sha1,
    #[default]
    Sha256,
    Sha512,
}

/// A header's name, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderName(String);

impl HeaderName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HeaderName {
    type Error = &'static str;

    fn try_from(mut text: String) -> Result<Self, &'static str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=100).contains(&text.len()) || !text.bytes().all(plain) {
            return Err("must be the name of a header, like X-Signature");
        }
        text.make_ascii_lowercase();
        Ok(Self(text))
    }
}

/// A text that stands before a value in a header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix(String);

impl Prefix {
    /// Returns what follows the prefix; `None` if `text` does not begin with it.
    #[must_use]
    pub fn strip<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.strip_prefix(self.0.as_str())
    }
}

impl TryFrom<String> for Prefix {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if text.len() <= MAX_PREFIX_CHARS && printable {
            Ok(Self(text))
        } else {
            Err("must be at most 64 printable ASCII characters")
        }
    }
}

/// The text that an HMAC signs, like `{timestamp}.{body}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Format(Vec<Part>);

/// A part of the signed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Id,
    Timestamp,
    Body,
}

impl Format {
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    fn has(&self, part: &Part) -> bool {
        self.0.contains(part)
    }
}

impl Default for Format {
    fn default() -> Self {
        Self(vec![Part::Body])
    }
}

impl TryFrom<String> for Format {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        const RULE: &str = "must contain {body} once, and may contain {timestamp} and {id} once";
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or(RULE)?;
            let part = match name {
                "body" => Part::Body,
                "timestamp" => Part::Timestamp,
                "id" => Part::Id,
                _ => return Err(RULE),
            };
            if parts.contains(&part) {
                return Err(RULE);
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(part);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let format = Self(parts);
        if format.has(&Part::Body) {
            Ok(format)
        } else {
            Err(RULE)
        }
    }
}

/// Where a delivery says which event it is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "EventFields")]
pub enum EventLocation {
    Header(HeaderName),
    /// In the payload.
    Pointer(Pointer),
    /// Every delivery of the source is about this event.
    Name(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventFields {
    header: Option<HeaderName>,
    pointer: Option<Pointer>,
    name: Option<String>,
}

impl TryFrom<EventFields> for EventLocation {
    type Error = &'static str;

    fn try_from(fields: EventFields) -> Result<Self, &'static str> {
        match (fields.header, fields.pointer, fields.name) {
            (Some(header), None, None) => Ok(Self::Header(header)),
            (None, Some(pointer), None) => Ok(Self::Pointer(pointer)),
            (None, None, Some(name)) => Ok(Self::Name(name)),
            _ => Err("must have one of header, pointer and name"),
        }
    }
}

/// The name of a scheme as the file writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SchemeName {
    Standard,
    Github,
    Gitlab,
    Stripe,
    Slack,
    Hmac,
    SharedSecret,
}

/// What the file says about the scheme of one source.
pub(super) struct SchemeFields {
    pub scheme: SchemeName,
    pub tolerance_s: Option<u64>,
    pub hmac: Option<Hmac>,
    pub shared_secret: Option<SharedSecret>,
}

impl SchemeFields {
    /// Checks that the options fit the scheme. `at`: the place of the source in the file.
    pub fn check(self, at: &str) -> Result<Scheme, String> {
        let name = self.scheme;
        for (option, surplus) in [
            ("hmac", self.hmac.is_some() && name != SchemeName::Hmac),
            (
                "shared_secret",
                self.shared_secret.is_some() && name != SchemeName::SharedSecret,
            ),
        ] {
            ensure(!surplus, || {
                format!("{at}.{option}: belongs to another scheme; remove it or change scheme")
            })?;
        }
        let missing = |option| {
            format!("{at}.{option}: missing; this scheme needs it, with at least the header")
        };
        let tolerance = tolerance(at, self.tolerance_s)?;
        let scheme = match name {
            SchemeName::Standard => Scheme::Standard(tolerance),
            SchemeName::Github => Scheme::Github,
            SchemeName::Gitlab => Scheme::Gitlab(tolerance),
            SchemeName::Stripe => Scheme::Stripe(tolerance),
            SchemeName::Slack => Scheme::Slack(tolerance),
            SchemeName::Hmac => {
                let hmac = self.hmac.ok_or_else(|| missing("hmac"))?;
                hmac.check(&format!("{at}.hmac"))?;
                Scheme::Hmac(hmac, tolerance)
            }
            SchemeName::SharedSecret => {
                let shared = self.shared_secret;
                Scheme::SharedSecret(shared.ok_or_else(|| missing("shared_secret"))?)
            }
        };
        ensure(self.tolerance_s.is_none() || scheme.signs_time(), || {
            format!("{at}.tolerance_s: this source signs no time; remove it")
        })?;
        Ok(scheme)
    }
}

impl Scheme {
    fn signs_time(&self) -> bool {
        match self {
            Self::Standard(_) | Self::Gitlab(_) | Self::Stripe(_) | Self::Slack(_) => true,
            Self::Hmac(hmac, _) => hmac.timestamp_header.is_some(),
            Self::Github | Self::SharedSecret(_) => false,
        }
    }

    /// Whether the scheme itself says where the name of an event is.
    pub(super) fn names_events(&self) -> bool {
        !matches!(self, Self::Hmac(..) | Self::SharedSecret(_))
    }
}

fn tolerance(at: &str, given: Option<u64>) -> Result<Tolerance, String> {
    let seconds = given.unwrap_or(DEFAULT_TOLERANCE_S);
    ensure((1..=MAX_TOLERANCE_S).contains(&seconds), || {
        format!("{at}.tolerance_s: must be from 1 to {MAX_TOLERANCE_S}")
    })?;
    Ok(Tolerance { seconds })
}

impl Hmac {
    fn check(&self, at: &str) -> Result<(), String> {
        for (field, part, header) in [
            ("timestamp", Part::Timestamp, &self.timestamp_header),
            ("id", Part::Id, &self.id_header),
        ] {
            let signed = self.format.has(&part);
            ensure(signed || header.is_none(), || {
                format!("{at}.format: must contain {{{field}}}, because {field}_header is set")
            })?;
            ensure(!signed || header.is_some(), || {
                format!("{at}.{field}_header: missing; the format contains {{{field}}}")
            })?;
        }
        Ok(())
    }
}
