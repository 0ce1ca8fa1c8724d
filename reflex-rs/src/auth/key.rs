//! API keys: `octo_<id>_<secret>`.

use sha2::{Digest, Sha256};

use crate::caller::{is_base32, KeyId};

const PREFIX: &str = "octo_";
/// Base32 of 32 random bytes, without padding.
const SECRET_LENGTH: usize = 52;

/// A well-formed API key: its id, and the digest of the whole key. The secret is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
}

impl ApiKey {
    /// Returns nothing if `text` is not an API key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?.as_bytes();
        let (id, rest) = rest.split_at_checked(KeyId::LENGTH)?;
        let secret = rest.strip_prefix(b"_")?;
        if secret.len() != SECRET_LENGTH || !is_base32(secret) {
            return None;
        }
        Some(Self {
            id: KeyId::parse(id)?,
            hash: Sha256::digest(text).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ApiKey;

    #[test]
    fn only_the_exact_form_is_a_key() {
        let secret = "a2".repeat(26);
        let text = format!("octo_abcdefgh2345_{secret}");
        let key = ApiKey::parse(&text).unwrap();
        assert_eq!(key.id.as_str(), "abcdefgh2345");
        assert_eq!(
            hex::encode(key.hash),
            contracts::ids::sha256_hex(text.as_bytes())
        );
        for wrong in [
            String::new(),
            "octo_".to_owned(),
            "octo_abcdefgh2345".to_owned(),
            format!("octo_abcdefgh2345_{}", &secret[1..]),
            format!("octo_abcdefgh2345_{secret}a"),
            format!("octo_abcdefgh2345_{}", secret.to_uppercase()),
            format!("octo_abcdefgh2345_{}8", &secret[1..]),
            format!("octo_abcdefgh234_{secret}"),
            format!("octo_abcdefgh23451{secret}"),
            format!("octo-abcdefgh2345_{secret}"),
            format!("OCTO_abcdefgh2345_{secret}"),
            format!(" {text}"),
            format!("octo_äbcdefgh234_{secret}"),
        ] {
            assert_eq!(ApiKey::parse(&wrong), None, "{wrong}");
        }
    }
}
