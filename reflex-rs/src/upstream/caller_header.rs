//! The header that tells the API for whom the reflex forwards a request.
//!
//! `v1;exp=<s>;tenant=<t>;scopes=<names, sorted>;mac=<hex>`, where `mac` is HMAC-SHA256 over
//! `v1\n<exp>\n<tenant>\n<scopes>\n<METHOD>\n<path and query>` with `api.secret`. The API believes nothing else, so a captured
//! header serves only the same request, and only for half a minute.

use axum::http::{HeaderName, HeaderValue, Method};
use contracts::ids;
use contracts::settings::Secret;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::ApiError;
use crate::auth::Clock;
use crate::caller::Caller;

pub(super) const CALLER: HeaderName = HeaderName::from_static("octollm-caller");
/// How long the API accepts a header. Longer than a request takes, and than clocks differ.
const LIFETIME_S: u64 = 30;

/// Signs on behalf of this reflex.
pub struct CallerSigner {
    secret: Secret,
    clock: Clock,
}

impl CallerSigner {
    /// Returns nothing if the secret is not set.
    #[must_use]
    pub fn new(secret: &Secret, clock: Clock) -> Option<Self> {
        let secret = secret.clone();
        (!secret.expose().is_empty()).then_some(Self { secret, clock })
    }

    /// Returns the header of a request for `path`, which includes the query.
    pub(super) fn sign(
        &self,
        caller: &Caller,
        method: &Method,
        path: &str,
    ) -> Result<HeaderValue, ApiError> {
        let now_ms = (self.clock)().unwrap_or_else(ids::now_ms);
        // Each part is ASCII, so it is always a header.
        sign(self.secret.expose(), now_ms, caller, method, path)
            .ok_or_else(|| ApiError::Unavailable("its request cannot be signed".to_owned()))
    }
}

/// Returns the header of a request for `path`, which includes the query. `now_ms`: the time since 1970.
fn sign(
    secret: &str,
    now_ms: u64,
    caller: &Caller,
    method: &Method,
    path: &str,
) -> Option<HeaderValue> {
    let (exp, tenant, scopes) = (now_ms / 1000 + LIFETIME_S, &caller.tenant, caller.scopes);
    // A key of any length is accepted.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(format!("v1\n{exp}\n{tenant}\n{scopes}\n{method}\n{path}").as_bytes());
    let mac = hex::encode(mac.finalize().into_bytes());
    let mut value = HeaderValue::try_from(format!(
        "v1;exp={exp};tenant={tenant};scopes={scopes};mac={mac}"
    ))
    .ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::sign;
    use crate::caller::{Caller, Scope};

    #[test]
    fn the_header_binds_caller_request_and_time() {
        let mut caller = Caller::new("acme".parse().unwrap());
        caller.scopes = [Scope::Submit, Scope::Read].into_iter().collect();
        let secret = "0123456789abcdef0123456789abcdef";
        let header = |now_ms, caller: &Caller, method, path| {
            let value = sign(secret, now_ms, caller, method, path).unwrap();
            value.to_str().unwrap().to_owned()
        };
        let now_ms = 1_790_000_000_999;
        let one = header(now_ms, &caller, &Method::GET, "/v1/tasks?limit=2");
        // Computed with Python's hmac module.
        assert_eq!(one, "v1;exp=1790000030;tenant=acme;scopes=read,submit;mac=08d3f7c985fc3997233e73e65b04587e282bc116374016b74d75f1a8029b4f0b");
        let mac = |text: String| text.rsplit_once("mac=").unwrap().1.to_owned();
        let expected = mac(one);
        let mut reader = caller.clone();
        reader.scopes = [Scope::Read].into_iter().collect();
        let other = Caller {
            tenant: "other".parse().unwrap(),
            ..caller.clone()
        };
        for different in [
            header(now_ms + 1000, &caller, &Method::GET, "/v1/tasks?limit=2"),
            header(now_ms, &other, &Method::GET, "/v1/tasks?limit=2"),
            header(now_ms, &reader, &Method::GET, "/v1/tasks?limit=2"),
            header(now_ms, &caller, &Method::DELETE, "/v1/tasks?limit=2"),
            header(now_ms, &caller, &Method::GET, "/v1/tasks?limit=3"),
        ] {
            assert_ne!(mac(different), expected);
        }
    }
}
