//! How senders of webhooks sign. Pure: raw bytes, headers and the clock come in, a verdict goes out.
//!
//! One file per scheme; a new one is a file with its `Verifier`, a word in `contracts::webhooks::Scheme` and a line in
//! `verifier`. Nothing here looks into a body before its signature fits.

mod github;
mod standard;

use contracts::webhooks::Scheme;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What arrived, as it arrived.
pub struct Delivery<'a> {
    /// A header by its lower-case name; none where it is missing, stands twice or is no text.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub body: &'a [u8],
    /// Seconds since 1970.
    pub now_s: u64,
}

/// Why a delivery is not the sender's, or not a fresh one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// No signature, or not written as the scheme wants it.
    #[error("the signature is missing or malformed")]
    Missing,
    #[error("the signature does not fit the body under any secret of this source")]
    Forged,
    /// Signed, but long ago or in the future: perhaps a replay.
    #[error("the signed time is too far from this machine's clock")]
    Stale,
}

/// Where a scheme keeps something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Header(&'static str),
    /// A JSON pointer.
    Body(&'static str),
}

/// A secret in the form that signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Key(..)")
    }
}

/// One scheme.
pub trait Verifier: Sync {
    /// The key within a secret as the sender's settings show it; the error says how it must be written.
    fn key(&self, secret: &str) -> Result<Key, &'static str>;

    /// Whether one of the keys signed this, in constant time for each.
    fn verify(&self, delivery: &Delivery<'_>, keys: &[Key]) -> Result<(), Unproven>;

    /// What stays the same when the sender delivers again.
    fn delivery_id(&self) -> Place;

    /// The event's name.
    fn event(&self) -> Place;
}

/// The verifier of a scheme.
#[must_use]
pub fn verifier(scheme: Scheme) -> &'static dyn Verifier {
    match scheme {
        Scheme::Github => &github::Github,
        Scheme::Standard => &standard::Standard,
    }
}

/// HMAC-SHA256 over the parts in a row; compares in constant time.
fn fits(key: &Key, parts: &[&[u8]], signature: &[u8]) -> bool {
    // HMAC takes a key of any length, so this never fails.
    Hmac::<Sha256>::new_from_slice(&key.0).is_ok_and(|mut mac| {
        for part in parts {
            mac.update(part);
        }
        mac.verify_slice(signature).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::{Delivery, Unproven, Verifier};

    /// Judges a delivery under the secrets, with no clock skew unless `now_s` has one.
    pub(super) fn judge(
        verifier: &dyn Verifier,
        secrets: &[&str],
        headers: &[(&str, &str)],
        body: &[u8],
        now_s: u64,
    ) -> Result<(), Unproven> {
        let keys: Vec<_> = secrets
            .iter()
            .map(|secret| verifier.key(secret).unwrap())
            .collect();
        let header = |name: &str| {
            let found = headers.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value)
        };
        let delivery = Delivery {
            header: &header,
            body,
            now_s,
        };
        verifier.verify(&delivery, &keys)
    }
}
