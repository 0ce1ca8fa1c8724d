//! Decides who a request acts for, and whether it may.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;

use super::presented::{find, Presented};
use super::{ApiKey, KeyRecord, Keys, Refusal, Tokens};
use crate::caller::{Caller, Credential, Scope};

/// How often the credential of an open event stream is checked.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the time in ms since 1970 by Redis' clock; nothing if Redis was never reached.
pub type Clock = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// Checks the credentials of requests, in memory only.
pub struct Authenticator {
    pub keys: Arc<Keys>,
    /// Absent if no issuer is configured.
    pub tokens: Option<Tokens>,
    /// Who a request without a credential acts for; `None`: it is refused.
    pub anonymous: Option<Caller>,
    pub clock: Clock,
}

impl Authenticator {
    /// Returns the caller of a request. A credential that is presented must be valid, also where none is needed.
    ///
    /// Waits only for the keys of an issuer, when a token names an unknown one.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let key = match find(headers) {
            Presented::Nothing => return self.anonymous.clone().ok_or(Refusal::Missing),
            Presented::Malformed => return Err(Refusal::Invalid),
            Presented::ApiKey(text) => ApiKey::parse(text).ok_or(Refusal::Invalid)?,
            Presented::Bearer(text) => match ApiKey::parse(text) {
                Some(key) => key,
                None => return self.verify_token(text).await,
            },
        };
        self.keys.verify(&key, |record| {
            let now_ms = self.unexpired(record)?;
            record.touch(now_ms);
            Ok(record.caller.clone())
        })
    }

    async fn verify_token(&self, token: &str) -> Result<Caller, Refusal> {
        let tokens = self.tokens.as_ref().ok_or(Refusal::Invalid)?;
        tokens.verify(token, self.now_ms()?).await
    }

    /// Fails if the caller's credential no longer allows `scope`: it was revoked, has expired or was replaced.
    pub fn recheck(&self, caller: &Caller, scope: Scope) -> Result<(), Refusal> {
        match &caller.credential {
            Credential::None => Ok(()),
            Credential::Key(id) => self.keys.find(id, |record| {
                self.unexpired(record)?;
                if record.caller.tenant != caller.tenant {
                    return Err(Refusal::Invalid);
                }
                authorize(&record.caller, scope)
            }),
            Credential::Token(token) if self.now_ms()? >= token.expires_at_ms => {
                Err(Refusal::Expired)
            }
            Credential::Token(_) => authorize(caller, scope),
        }
    }

    /// Waits until the caller's credential no longer allows `scope`, or nobody can say whether it does; returns why.
    pub async fn until_refused(&self, caller: &Caller, scope: Scope) -> Refusal {
        if caller.credential == Credential::None {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(RECHECK_INTERVAL).await;
            if let Err(refusal) = self.recheck(caller, scope) {
                return refusal;
            }
        }
    }

    fn now_ms(&self) -> Result<u64, Refusal> {
        (self.clock)().ok_or(Refusal::Unavailable)
    }

    /// Returns the time, at which the key has not expired.
    fn unexpired(&self, record: &KeyRecord) -> Result<u64, Refusal> {
        let now_ms = self.now_ms()?;
        if record.has_expired(now_ms) {
            return Err(Refusal::Expired);
        }
        Ok(now_ms)
    }
}

/// Fails if the caller does not have the scope.
pub fn authorize(caller: &Caller, scope: Scope) -> Result<(), Refusal> {
    if caller.scopes.allow(scope) {
        Ok(())
    } else {
        Err(Refusal::InsufficientScope(scope))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::HeaderMap;
    use serde_json::json;

    use super::{Authenticator, Caller, Keys, Refusal, Scope};
    use crate::auth::{ApiKey, KeyRecord};

    const NOW_MS: u64 = 1_790_000_000_000;

    fn text(secret: char) -> String {
        format!("octo_abcdefgh2345_{}", secret.to_string().repeat(52))
    }

    /// One that knows the key with the secret `a…`.
    fn authenticator(scopes: &[&str], expires_at_ms: Option<u64>) -> Authenticator {
        let hash = hex::encode(ApiKey::parse(&text('a')).unwrap().hash);
        let record = json!({"tenant": "acme", "hash": hash, "scopes": scopes, "expires_at_ms": expires_at_ms});
        let record = KeyRecord::parse(b"abcdefgh2345", record.to_string().as_bytes()).unwrap();
        let keys = Keys::default();
        keys.set(Some(Arc::new([record].into_iter().collect())));
        Authenticator {
            keys: Arc::new(keys),
            tokens: None,
            anonymous: None,
            clock: Arc::new(|| Some(NOW_MS)),
        }
    }

    async fn authenticate(authenticator: &Authenticator, token: &str) -> Result<Caller, Refusal> {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {token}").parse().unwrap();
        headers.insert("authorization", value);
        authenticator.authenticate(&headers).await
    }

    #[tokio::test]
    async fn the_caller_comes_from_the_key() {
        let known = authenticator(&["read"], None);
        let caller = authenticate(&known, &text('a')).await.unwrap();
        assert_eq!(
            (caller.tenant.as_str(), caller.credential.name()),
            ("acme", Some("abcdefgh2345"))
        );
        assert!(caller.scopes.allow(Scope::Read) && !caller.scopes.allow(Scope::Submit));
        for wrong in [text('b').as_str(), "", "x", "octo_abcdefgh2345"] {
            assert_eq!(
                authenticate(&known, wrong).await,
                Err(Refusal::Invalid),
                "{wrong}"
            );
        }
    }

    #[tokio::test]
    async fn a_key_ends_with_its_expiry() {
        let valid = authenticator(&["read"], Some(NOW_MS + 1));
        let caller = authenticate(&valid, &text('a')).await.unwrap();
        let expired = authenticator(&["read"], Some(NOW_MS));
        assert_eq!(
            authenticate(&expired, &text('a')).await,
            Err(Refusal::Expired)
        );
        assert_eq!(
            authenticate(&expired, &text('b')).await,
            Err(Refusal::Invalid),
            "only who has the key learns that it has expired"
        );
        assert_eq!(valid.recheck(&caller, Scope::Read), Ok(()));
        assert_eq!(expired.recheck(&caller, Scope::Read), Err(Refusal::Expired));
    }

    #[tokio::test]
    async fn without_a_credential_only_anonymous_access_helps() {
        let mut authenticator = authenticator(&["read"], None);
        let none = HeaderMap::new();
        assert_eq!(
            authenticator.authenticate(&none).await,
            Err(Refusal::Missing)
        );
        let anonymous = Caller::new("default".parse().unwrap());
        authenticator.anonymous = Some(anonymous.clone());
        assert_eq!(
            authenticator.authenticate(&none).await,
            Ok(anonymous.clone())
        );
        assert_eq!(authenticator.recheck(&anonymous, Scope::Read), Ok(()));
        assert_eq!(
            authenticate(&authenticator, &text('b')).await,
            Err(Refusal::Invalid),
            "a wrong credential is never anonymous"
        );
    }

    #[tokio::test]
    async fn a_caller_loses_what_its_key_loses() {
        let caller = authenticate(&authenticator(&["read"], None), &text('a'))
            .await
            .unwrap();
        let without_read = authenticator(&["submit"], None);
        assert_eq!(
            without_read.recheck(&caller, Scope::Read),
            Err(Refusal::InsufficientScope(Scope::Read))
        );
        without_read.keys.set(Some(Arc::default()));
        assert_eq!(
            without_read.recheck(&caller, Scope::Read),
            Err(Refusal::Invalid)
        );
    }
}
