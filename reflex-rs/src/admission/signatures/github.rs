//! GitHub: `X-Hub-Signature-256: sha256=<hex>`, HMAC-SHA256 of the body. It signs no time, so a repeat is known by the
//! delivery's id alone.

use super::{fits, Delivery, Key, Place, Unproven, Verifier};

pub(super) struct Github;

impl Verifier for Github {
    fn key(&self, secret: &str) -> Result<Key, &'static str> {
        Ok(Key(secret.as_bytes().to_vec()))
    }

    fn verify(&self, delivery: &Delivery<'_>, keys: &[Key]) -> Result<(), Unproven> {
        let signature = (delivery.header)("x-hub-signature-256")
            .and_then(|text| text.strip_prefix("sha256="))
            .and_then(from_hex)
            .ok_or(Unproven::Missing)?;
        keys.iter()
            .any(|key| fits(key, &[delivery.body], &signature))
            .then_some(())
            .ok_or(Unproven::Forged)
    }

    fn delivery_id(&self) -> Place {
        Place::Header("x-github-delivery")
    }

    fn event(&self) -> Place {
        Place::Header("x-github-event")
    }
}

/// The 32 bytes of 64 lower-case digits, as GitHub writes them.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::judge;
    use super::{Github, Unproven};

    // The values that GitHub's documentation gives for testing.
    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn the_documented_example_fits_also_while_a_secret_is_replaced() {
        let signed = [("x-hub-signature-256", SIGNATURE)];
        for secrets in [&[SECRET][..], &["new", SECRET], &[SECRET, "new"]] {
            assert_eq!(judge(&Github, secrets, &signed, BODY, 0), Ok(()));
        }
    }

    #[test]
    fn anything_else_does_not() {
        let judge = |secret, signature, body| {
            judge(
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
            assert_eq!(judge(secret, signature, body), Err(Unproven::Forged));
        }
        let upper = SIGNATURE.to_uppercase();
        for malformed in [
            "",
            "sha256=",
            &SIGNATURE[7..],
            &SIGNATURE[..70],
            upper.as_str(),
            "sha1=757107ea",
        ] {
            assert_eq!(
                judge(SECRET, malformed, BODY),
                Err(Unproven::Missing),
                "{malformed}"
            );
        }
        assert_eq!(
            super::super::tests::judge(&Github, &[SECRET], &[], BODY, 0),
            Err(Unproven::Missing)
        );
        assert_eq!(
            super::super::tests::judge(
                &Github,
                &[],
                &[("x-hub-signature-256", SIGNATURE)],
                BODY,
                0
            ),
            Err(Unproven::Forged),
            "without a secret nothing fits"
        );
    }
}
