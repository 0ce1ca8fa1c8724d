//! GitHub: `X-Hub-Signature-256: sha256=<hex>`, the HMAC-SHA256 of the body. Neither a time nor the delivery's id is signed,
//! so a repeated delivery is recognised by its body, which holds the time of what happened.

use hmac::Mac;

use super::{mac, Delivery, FieldLocation, Key, SignatureError, Verifier};

/// Anyone who has seen one delivery can try shorter secrets until one fits.
const MIN_SECRET_BYTES: usize = 16;

pub(super) struct Github;

impl Verifier for Github {
    fn key(&self, secret: &str) -> Result<Key, &'static str> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err("must have at least 16 characters; generate it, for example with `openssl rand -hex 32`");
        }
        Ok(Key(secret.as_bytes().to_vec()))
    }

    fn verify(&self, delivery: &Delivery<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        let digits = (delivery.header)("x-hub-signature-256")
            .and_then(|text| text.strip_prefix("sha256="))
            .ok_or(SignatureError::Missing)?;
        let mut signature = [0; 32];
        hex::decode_to_slice(digits, &mut signature).map_err(|_| SignatureError::Missing)?;
        keys.iter()
            .filter_map(|key| mac(key, &[delivery.body]))
            .any(|mac| mac.verify_slice(&signature).is_ok())
            .then_some(())
            .ok_or(SignatureError::Mismatch)
    }

    fn signed_id(&self) -> Option<FieldLocation> {
        None
    }

    fn event(&self) -> FieldLocation {
        FieldLocation::Header("x-github-event")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::verify;
    use super::{Github, SignatureError, Verifier};

    // The values that GitHub's documentation gives for testing.
    const SECRET: &str = "It's a Secret to Everybody";
    const NEW: &str = "another good secret";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn the_documented_example_matches_during_a_secret_rotation() {
        let signed = [("x-hub-signature-256", SIGNATURE)];
        for secrets in [&[SECRET][..], &[NEW, SECRET], &[SECRET, NEW]] {
            assert_eq!(verify(&Github, secrets, &signed, BODY, 0), Ok(()));
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        for (secret, usable) in [
            ("x", false),
            ("fifteen letters", false),
            ("sixteen letters!", true),
        ] {
            assert_eq!(Github.key(secret).is_ok(), usable, "{secret}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let verify_body = |secret, signature, body| {
            verify(
                &Github,
                &[secret],
                &[("x-hub-signature-256", signature)],
                body,
                0,
            )
        };
        let other = SIGNATURE.replace("757", "758");
        for (secret, signature, body) in [
            ("it's a Secret to Everybody", SIGNATURE, BODY),
            (SECRET, other.as_str(), BODY),
            (SECRET, SIGNATURE, b"Hello, World?"),
            (SECRET, SIGNATURE, b""),
        ] {
            assert_eq!(
                verify_body(secret, signature, body),
                Err(SignatureError::Mismatch)
            );
        }
        for malformed in [
            "",
            "sha256=",
            &SIGNATURE[7..],
            &SIGNATURE[..70],
            "sha1=757107ea",
        ] {
            assert_eq!(
                verify_body(SECRET, malformed, BODY),
                Err(SignatureError::Missing),
                "{malformed}"
            );
        }
        assert_eq!(
            super::super::tests::verify(&Github, &[SECRET], &[], BODY, 0),
            Err(SignatureError::Missing)
        );
        assert_eq!(
            super::super::tests::verify(
                &Github,
                &[],
                &[("x-hub-signature-256", SIGNATURE)],
                BODY,
                0
            ),
            Err(SignatureError::Mismatch),
            "without a secret nothing matches"
        );
    }
}
