//! JSON Web Tokens (RFC 7519): from a token to its caller.

use std::sync::Arc;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use contracts::credentials::Issuer;
use contracts::strict_json;
use jsonwebtoken::{decode, Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks::{Jwks, NoKey};
use super::Refusal;
use crate::caller::{Caller, Credential, Scope, Scopes, Token};

/// A longer token is refused unread.
const MAX_LENGTH: usize = 8 * 1024;

type Claims = Map<String, Value>;

/// The parts of a header that matter. `crit` names extensions that must be understood; none is.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    crit: Option<Value>,
}

/// An issuer and its keys.
struct Trusted {
    issuer: Issuer,
    jwks: Arc<Jwks>,
}

/// Verifies the tokens of the configured issuers.
pub struct Tokens(Vec<Trusted>);

impl Tokens {
    /// Prepares the issuers. Fails if the system's certificates cannot be read.
    pub fn new(issuers: Vec<Issuer>) -> std::io::Result<Self> {
        let prepare = |issuer: Issuer| {
            let jwks = Jwks::new(issuer.jwks.clone(), issuer.algorithms.clone())?;
            Ok(Trusted {
                issuer,
                jwks: Arc::new(jwks),
            })
        };
        let trusted: std::io::Result<_> = issuers.into_iter().map(prepare).collect();
        Ok(Self(trusted?))
    }

    /// Returns one loop for each issuer, which keeps its keys up to date as long as the process runs.
    pub fn loops(
        &self,
    ) -> impl Iterator<Item = impl std::future::Future<Output = ()> + Send + 'static> + '_ {
        self.0.iter().map(|one| Arc::clone(&one.jwks).keep_fresh())
    }

    /// Returns the caller of a token. `now_ms`: ms since 1970.
    pub(super) async fn verify(&self, token: &str, now_ms: u64) -> Result<Caller, Refusal> {
        if token.len() > MAX_LENGTH {
            return Err(Refusal::Invalid);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Invalid);
        };
        let header: Header = part(header)?;
        if header.crit.is_some() {
            return Err(Refusal::Invalid);
        }
        // Not verified yet: only says whose keys to verify with.
        let claims: Claims = part(claims)?;
        let issuer = claims.get("iss").and_then(Value::as_str);
        let trusted = self
            .0
            .iter()
            .find(|one| Some(one.issuer.issuer.as_str()) == issuer);
        let trusted = trusted.ok_or(Refusal::Invalid)?;
        let verify = |key: &jsonwebtoken::DecodingKey| {
            decode::<Claims>(token, key, &only_signature(header.alg)).is_ok()
        };
        let verified = trusted
            .jwks
            .with_key(header.kid.as_deref(), header.alg, verify);
        match verified.await {
            Ok(true) => caller(&trusted.issuer, &claims, now_ms),
            Ok(false) | Err(NoKey::Unknown) => Err(Refusal::Invalid),
            Err(NoKey::Unavailable) => Err(Refusal::Unavailable),
        }
    }
}

/// The claims are checked here, by Redis' clock.
fn only_signature(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Parses a part of a token. A name that stands twice could mean one thing here and another to its issuer.
fn part<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::Invalid)?;
    strict_json::check(&json).map_err(|_| Refusal::Invalid)?;
    serde_json::from_slice(&json).map_err(|_| Refusal::Invalid)
}

/// Checks the claims of a token whose signature is right.
fn caller(issuer: &Issuer, claims: &Claims, now_ms: u64) -> Result<Caller, Refusal> {
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => *one == issuer.audience,
        Some(Value::Array(several)) => several.iter().any(|one| *one == issuer.audience.as_str()),
        _ => false,
    };
    let leeway_ms = issuer.leeway_s * 1000;
    let expires_at_ms = time_ms(claims, "exp")?.ok_or(Refusal::Invalid)? + leeway_ms;
    let begins_at_ms = time_ms(claims, "nbf")?.unwrap_or(0);
    if !audience || now_ms + leeway_ms < begins_at_ms {
        return Err(Refusal::Invalid);
    }
    if now_ms >= expires_at_ms {
        return Err(Refusal::Expired);
    }
    let tenant = claims.get(&issuer.tenant_claim).and_then(Value::as_str);
    let tenant = tenant.and_then(|tenant| tenant.parse().ok());
    let token = Token {
        issuer: issuer.issuer.clone(),
        expires_at_ms,
    };
    Ok(Caller {
        tenant: tenant.ok_or(Refusal::Invalid)?,
        scopes: scopes(claims.get(&issuer.scopes_claim)),
        credential: Credential::Token(Arc::new(token)),
    })
}

/// Returns a time of the claims in ms; fails if it is not a number of seconds since 1970.
fn time_ms(claims: &Claims, name: &str) -> Result<Option<u64>, Refusal> {
    // Ten thousand years, which no sum overflows.
    const MAX_S: f64 = 3.2e11;
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.0..=MAX_S).contains(seconds));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // its range was checked
    let ms = seconds.map(|seconds| (seconds * 1000.0) as u64);
    ms.map(Some).ok_or(Refusal::Invalid)
}

/// The scopes that are known here; a token may have others for other programs.
fn scopes(claim: Option<&Value>) -> Scopes {
    let known = |name: &str| name.parse::<Scope>().ok();
    match claim {
        Some(Value::String(names)) => names.split(' ').filter_map(known).collect(),
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .filter_map(known)
            .collect(),
        _ => Scopes::default(),
    }
}
