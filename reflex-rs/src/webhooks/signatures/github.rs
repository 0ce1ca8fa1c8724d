//! GitHub: `X-Hub-Signature-256: sha256=<hex>`, the HMAC-SHA256 of the body. Neither a time nor the delivery's id is signed,
//! so a repeated delivery is recognised by its body, which holds the time of what happened.

use contracts::webhooks::{Algorithm, Encoding};

use super::{
    hashing, secret, Delivery, EventField, Forms, Key, SignatureError, SignedId, Verifier,
};

const SIGNATURE: &str = "x-hub-signature-256";

pub(super) struct Github;

impl Verifier for Github {
    fn key(&self, secret: &str) -> Result<Key, String> {
        secret::plain(secret).map(Key::Signing)
    }

    fn verify<'s>(
        &'s self,
        delivery: &Delivery<'_>,
        keys: &[Key],
    ) -> Result<SignedId<'s>, SignatureError> {
        let signature = delivery
            .header(SIGNATURE)?
            .strip_prefix("sha256=")
            .and_then(|digits| hashing::decode(Encoding::Hex, digits))
            .ok_or_else(|| SignatureError::malformed(SIGNATURE))?;
        if !hashing::any_signed(Algorithm::Sha256, keys, &[delivery.body], &[signature]) {
            return Err(SignatureError::Mismatch);
        }
        Ok(SignedId::None)
    }

    fn event(&self) -> &'static [EventField<'static>] {
        &[EventField::Header("x-github-event")]
    }

    fn forms(&self) -> Forms {
        Forms::Payload
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{malformed, Signed};
    use super::{Github, SignatureError, SignedId, SIGNATURE as HEADER};

    // The values that GitHub's documentation gives for testing.
    const SECRET: &str = "It's a Secret to Everybody";
    const NEW: &str = "another good secret";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn example() -> Signed<'static> {
        Signed::new(&Github, &[SECRET], BODY, 0).header(HEADER, SIGNATURE)
    }

    #[test]
    fn the_documented_example_matches_during_a_secret_rotation() {
        for secrets in [&[SECRET][..], &[NEW, SECRET], &[SECRET, NEW]] {
            let found = example().secrets(secrets).verify();
            assert_eq!(found, Ok(SignedId::None));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let mismatch = Err(SignatureError::Mismatch);
        let wrong = example().secrets(&["it's a Secret to Everybody"]);
        assert_eq!(wrong.verify(), mismatch);
        assert_eq!(example().secrets(&[]).verify(), mismatch);
        for body in [&b"Hello, World?"[..], b""] {
            assert_eq!(example().body(body).verify(), mismatch);
        }
        let other = SIGNATURE.replace("757", "758");
        for signature in [other.as_str(), &SIGNATURE[..69], "sha256="] {
            let found = example().header(HEADER, signature).verify();
            assert_eq!(found, mismatch, "{signature}");
        }
        for signature in [
            "",
            &SIGNATURE[7..],
            &SIGNATURE[..70],
            "sha1=757107ea",
            "sha256=é",
        ] {
            let found = example().header(HEADER, signature).verify();
            assert_eq!(found, malformed(HEADER), "{signature}");
        }
        assert_eq!(example().without(HEADER).verify(), malformed(HEADER));
    }
}
