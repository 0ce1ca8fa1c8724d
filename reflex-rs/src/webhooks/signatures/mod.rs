//! How senders of webhooks sign. Pure: raw bytes, headers and the clock come in, a verdict goes out.
//!
//! One file per scheme. A new one is a file with its `Verifier`, a word in `contracts::webhooks::Scheme` and a line in
//! `verifier`. Nothing here parses a body before its signature is verified.

mod github;
mod standard;

use contracts::webhooks::Scheme;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A delivery as it was received.
pub struct Delivery<'a> {
    /// Returns a header by its lower-case name, or `None` if it is missing, repeated or not text.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub body: &'a [u8],
    /// Seconds since 1970, by the store's clock.
    pub now_s: u64,
}

/// Why a delivery is not proven to be its sender's, or not recent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the signature is missing or malformed")]
    Missing,
    #[error("the signature does not match the body under any secret of this source")]
    Mismatch,
    /// The signature matches, but its time is long ago or in the future: possibly a replay.
    #[error("the signed time is too far from this machine's clock")]
    Expired,
}

/// Where a scheme puts a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldLocation {
    /// A header, by its lower-case name.
    Header(&'static str),
    /// A JSON pointer into the body.
    Body(&'static str),
}

/// The key that a sender signs with.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Key(..)")
    }
}

/// One signature scheme.
pub trait Verifier: Sync {
    /// Extracts the key from a secret as the sender's settings show it. The error says how the secret must be written.
    fn key(&self, secret: &str) -> Result<Key, &'static str>;

    /// Checks that one of the keys signed the delivery, in constant time for each key.
    fn verify(&self, delivery: &Delivery<'_>, keys: &[Key]) -> Result<(), SignatureError>;

    /// Where the signed id is that stays the same when the sender delivers again. `None` if the scheme signs no id; the
    /// digest of the signed body then tells a repeat from a new delivery.
    fn signed_id(&self) -> Option<FieldLocation>;

    /// Where the event's name is.
    fn event(&self) -> FieldLocation;
}

/// Returns the verifier of a scheme.
#[must_use]
pub fn verifier(scheme: Scheme) -> &'static dyn Verifier {
    match scheme {
        Scheme::Github => &github::Github,
        Scheme::Standard => &standard::Standard,
    }
}

/// HMAC-SHA256 over the concatenated parts. `None` cannot happen: HMAC takes a key of any length.
fn mac(key: &Key, parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::{Delivery, SignatureError, Verifier};

    /// Verifies a delivery under these secrets.
    pub(super) fn verify(
        verifier: &dyn Verifier,
        secrets: &[&str],
        headers: &[(&str, &str)],
        body: &[u8],
        now_s: u64,
    ) -> Result<(), SignatureError> {
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
