//! The file of `reflex.credentials_file` as frozen types: whose tokens (JWT) the reflex accepts, and how it checks them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::yaml::{self, ensure};

/// Why the file was refused; the text names the place and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct CredentialsError {
    pub path: PathBuf,
    pub message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    issuers: Vec<Issuer>,
}

/// One issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The claim `iss` of its tokens, exactly.
    pub issuer: String,
    /// What the claim `aud` must be or contain.
    pub audience: String,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Where its public keys are.
    pub jwks: JwksSource,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// The claim with the scopes: a text with spaces between them, or a list.
    #[serde(default = "scope")]
    pub scopes_claim: String,
    /// How far the issuer's clock may differ from Redis', in seconds.
    #[serde(default = "half_a_minute")]
    pub leeway_s: u64,
}

fn scope() -> String {
    "scope".to_owned()
}

fn half_a_minute() -> u64 {
    30
}

/// An asymmetric signature algorithm (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl TryFrom<String> for Algorithm {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Ok(match name.as_str() {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => {
                return Err(
                    "must be RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA; none and the symmetric HS* are \
                     never accepted",
                )
            }
        })
    }
}

/// Where a set of keys (RFC 7517) is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum JwksSource {
    Https(String),
    File(PathBuf),
}

impl TryFrom<String> for JwksSource {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.strip_prefix("file:") {
            Some(path) if path.starts_with('/') => return Ok(Self::File(PathBuf::from(path))),
            _ => {}
        }
        let rest = text.strip_prefix("https://").unwrap_or_default();
        let plain = rest
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'@');
        if rest.is_empty() || rest.starts_with('/') || !plain {
            return Err("must be https://host/path without a user, or file:/absolute/path");
        }
        Ok(Self::Https(text))
    }
}

impl std::fmt::Display for JwksSource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Https(url) => out.write_str(url),
            Self::File(path) => write!(out, "{}", path.display()),
        }
    }
}

/// Reads and checks the file.
pub fn load(path: &Path) -> Result<Vec<Issuer>, CredentialsError> {
    let refused = |message| CredentialsError {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        refused(format!(
            "cannot be read ({error}); correct OCTOLLM_REFLEX_CREDENTIALS_FILE or unset it"
        ))
    })?;
    parse(&text).map_err(refused)
}

/// `load` without reading the file itself.
pub fn parse(text: &str) -> Result<Vec<Issuer>, String> {
    let file: File = yaml::read(text, "version: 1", |_| None)?;
    if file.version != 1 {
        return Err(format!(
            "version: is {}, this program reads version 1",
            file.version
        ));
    }
    for (index, issuer) in file.issuers.iter().enumerate() {
        check(&format!("issuers[{index}]"), issuer)?;
        let twice = file.issuers[..index]
            .iter()
            .any(|other| other.issuer == issuer.issuer);
        ensure(!twice, || {
            format!("issuers[{index}].issuer: stands twice; one entry has all of an issuer's algorithms")
        })?;
    }
    Ok(file.issuers)
}

fn check(at: &str, issuer: &Issuer) -> Result<(), String> {
    for (key, text) in [
        ("issuer", &issuer.issuer),
        ("audience", &issuer.audience),
        ("tenant_claim", &issuer.tenant_claim),
        ("scopes_claim", &issuer.scopes_claim),
    ] {
        ensure(!text.is_empty(), || {
            format!("{at}.{key}: must not be empty")
        })?;
    }
    ensure(!issuer.algorithms.is_empty(), || {
        format!("{at}.algorithms: must name at least one, like ES256")
    })?;
    ensure(issuer.leeway_s <= 300, || {
        format!("{at}.leeway_s: must be from 0 to 300")
    })
}

#[cfg(test)]
mod tests {
    use super::{parse, Algorithm, JwksSource};

    const GOOD: &str = "\
version: 1
issuers:
  - issuer: https://login.example.org
    audience: octollm
    algorithms: [ES256, EdDSA]
    jwks: https://login.example.org/jwks.json
    tenant_claim: org
";

    #[test]
    fn an_issuer_has_its_defaults() {
        let issuer = parse(GOOD).unwrap().remove(0);
        assert_eq!(issuer.algorithms, [Algorithm::Es256, Algorithm::EdDsa]);
        assert_eq!(
            (issuer.scopes_claim.as_str(), issuer.leeway_s),
            ("scope", 30)
        );
        let file = GOOD.replace("https://login.example.org/jwks.json", "file:/etc/jwks.json");
        let jwks = parse(&file).unwrap().remove(0).jwks;
        assert_eq!(jwks, JwksSource::File("/etc/jwks.json".into()));
    }

    #[test]
    fn a_wrong_file_is_refused_by_its_place() {
        for (old, new, says) in [
            ("version: 1", "version: 2", "version: is 2"),
            (
                "ES256, EdDSA",
                "none",
                "issuers[0].algorithms[0]: must be RS256",
            ),
            (
                "ES256, EdDSA",
                "HS256",
                "issuers[0].algorithms[0]: must be RS256",
            ),
            (
                "ES256, EdDSA",
                "",
                "issuers[0].algorithms: must name at least one",
            ),
            (
                "audience: octollm",
                "audience: ''",
                "issuers[0].audience: must not be empty",
            ),
            ("    audience: octollm\n", "", "audience: missing"),
            (
                "jwks: https:",
                "jwks: http:",
                "issuers[0].jwks: must be https://",
            ),
            (
                "jwks: https://",
                "jwks: https://user:pw@",
                "issuers[0].jwks: must be https://",
            ),
            (
                "jwks: https://login.example.org/",
                "jwks: file:",
                "issuers[0].jwks: must be https://",
            ),
            ("tenant_claim", "tenant", "issuers[0].tenant: unknown key"),
            (
                "tenant_claim: org",
                "tenant_claim: org\n    leeway_s: 301",
                "leeway_s: must be from 0 to 300",
            ),
        ] {
            assert!(GOOD.contains(old), "{old}");
            let refused = parse(&GOOD.replacen(old, new, 1)).unwrap_err();
            assert!(refused.contains(says), "{new}: {refused}");
            assert!(!refused.contains("pw"), "{refused}");
        }
        let twice = format!("{GOOD}{}", GOOD.split_once("issuers:\n").unwrap().1);
        assert!(parse(&twice)
            .unwrap_err()
            .contains("issuers[1].issuer: stands twice"));
    }
}
