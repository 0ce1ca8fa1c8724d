//! How senders of webhooks sign. Pure: raw bytes, headers and the clock come in, a verdict goes out.
//!
//! One file per scheme; `hashing`, `secret` and `timestamp` are shared. A new scheme is a file with its `Verifier`, a variant
//! of `contracts::webhooks::Scheme` and a line in `verifier`. Nothing here parses a body before its signature is verified.

mod github;
mod gitlab;
mod hashing;
mod hmac;
mod secret;
mod shared_secret;
mod slack;
mod standard;
mod stripe;
mod timestamp;

use contracts::webhooks::Scheme;
use serde_json::Value;

/// A delivery as it was received.
pub struct Delivery<'a> {
    /// Returns a header by its lower-case name, or `None` if it is missing, repeated or not text.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub body: &'a [u8],
    /// Seconds since 1970, by the store's clock.
    pub now_s: u64,
}

impl<'a> Delivery<'a> {
    fn header(&self, name: &str) -> Result<&'a str, SignatureError> {
        (self.header)(name).ok_or_else(|| SignatureError::malformed(name))
    }
}

/// Why a delivery is not proven to be its sender's, or not recent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is missing, repeated or not as the scheme writes it.
    #[error("the header {header} must occur once, as the scheme of this source writes it")]
    Malformed { header: String },
    #[error("the signature does not match the body under any secret of this source")]
    Mismatch,
    /// The signature matches, but its time is long ago or in the future: possibly a replay.
    #[error("the signed time is more than {tolerance_s} s away from this service's clock")]
    Expired { tolerance_s: u64 },
}

impl SignatureError {
    fn malformed(header: &str) -> Self {
        let header = header.to_owned();
        Self::Malformed { header }
    }
}

/// What a signature covers that stays the same when the sender delivers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedId<'a> {
    /// A header with the delivery's id, by its lower-case name.
    Header(&'a str),
    /// A JSON pointer to the event's id. Where the body has none, its digest counts.
    Body(&'static str),
    /// No id is signed. The digest of the body tells a repeat from a new delivery.
    None,
}

/// Where the name of an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventField<'a> {
    /// A header, by its lower-case name.
    Header(&'a str),
    /// A JSON pointer into the payload.
    Body(&'a str),
    /// The name itself.
    Name(&'a str),
}

/// What a sender proves itself with.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// The key of an HMAC.
    Signing(Vec<u8>),
    /// A text that the sender sends as it is.
    Token(Vec<u8>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Key(..)")
    }
}

/// One signature scheme.
pub trait Verifier: Send + Sync {
    /// Extracts the key from a secret as the sender's settings show it. The error says how the secret must be written.
    fn key(&self, secret: &str) -> Result<Key, String>;

    /// Checks that one of the keys signed the delivery, recently where the scheme signs a time. Compares in constant time and
    /// hashes the body at most once for each key. Returns where the signed id is.
    fn verify<'s>(
        &'s self,
        delivery: &Delivery<'_>,
        keys: &[Key],
    ) -> Result<SignedId<'s>, SignatureError>;

    /// Where the event's name can be; the first place that has one counts.
    fn event(&self) -> &'static [EventField<'static>];

    /// What the sender may send as a form, besides JSON.
    fn forms(&self) -> Forms {
        Forms::Refused
    }

    /// Returns the text that the sender expects back when it checks the address; `None` for every other delivery.
    fn challenge<'a>(&self, _payload: &'a Value) -> Option<&'a str> {
        None
    }
}

/// Which bodies of type `application/x-www-form-urlencoded` a scheme takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forms {
    Refused,
    /// One field `payload` with JSON.
    Payload,
    /// Like `Payload`; without that field, the fields themselves are the payload. The sender shows the answer's body to a
    /// person, so an accepted form is answered without one.
    PayloadOrFields,
}

/// Returns the verifier of a scheme.
#[must_use]
pub fn verifier(scheme: Scheme) -> Box<dyn Verifier> {
    match scheme {
        Scheme::Standard(tolerance) => Box::new(standard::Standard { tolerance }),
        Scheme::Github => Box::new(github::Github),
        Scheme::Gitlab(tolerance) => Box::new(gitlab::Gitlab { tolerance }),
        Scheme::Stripe(tolerance) => Box::new(stripe::Stripe { tolerance }),
        Scheme::Slack(tolerance) => Box::new(slack::Slack { tolerance }),
        Scheme::Hmac(options, tolerance) => Box::new(hmac::Hmac { options, tolerance }),
        Scheme::SharedSecret(options) => Box::new(shared_secret::SharedSecret { options }),
    }
}

#[cfg(test)]
mod tests;
