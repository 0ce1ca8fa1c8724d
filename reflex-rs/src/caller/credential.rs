//! What a caller has proved its identity with. Never the secret itself.

use std::fmt;
use std::sync::Arc;

/// The credential of a request that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// None was needed.
    None,
    /// An API key.
    Key(KeyId),
    /// A token (JWT).
    Token(Arc<Token>),
}

/// What is kept of a token.
#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    pub issuer: String,
    /// With the leeway of its issuer, in ms since 1970.
    pub expires_at_ms: u64,
}

impl Credential {
    /// The name of the credential for logs, if there is one: the id of a key, or the issuer of a token.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Key(id) => Some(id.as_str()),
            Self::Token(token) => Some(&token.issuer),
        }
    }
}

/// The public part of an API key: 12 characters of `a-z` and `2-7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; Self::LENGTH]);

impl KeyId {
    pub const LENGTH: usize = 12;

    /// Returns nothing if `text` is not a key id.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let id = <[u8; Self::LENGTH]>::try_from(text).ok()?;
        is_base32(&id).then_some(Self(id))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        // It is ASCII, so this never fails.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Whether every byte is a lower-case letter of base32 (RFC 4648).
pub(crate) fn is_base32(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(byte))
}
