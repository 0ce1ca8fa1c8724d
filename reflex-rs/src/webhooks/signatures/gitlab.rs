//! GitLab: a secret token in `X-Gitlab-Token`, or, since its version 19, a signing token as in Standard Webhooks. A secret that
//! begins with `whsec_` is a signing token. A webhook may have both; then the signature counts.

use contracts::webhooks::Tolerance;

use super::{
    hashing, secret, standard, Delivery, EventField, Key, SignatureError, SignedId, Verifier,
};

const TOKEN: &str = "x-gitlab-token";

pub(super) struct Gitlab {
    pub tolerance: Tolerance,
}

impl Verifier for Gitlab {
    fn key(&self, secret: &str) -> Result<Key, String> {
        if secret.starts_with(secret::PREFIX) {
            secret::standard(secret).map(Key::Signing)
        } else {
            secret::plain(secret).map(Key::Token)
        }
    }

    fn verify<'s>(
        &'s self,
        delivery: &Delivery<'_>,
        keys: &[Key],
    ) -> Result<SignedId<'s>, SignatureError> {
        let is_signing = |key: &Key| matches!(key, Key::Signing(_));
        let only_signing = keys.iter().all(is_signing);
        if only_signing || (keys.iter().any(is_signing) && standard::is_signed(delivery)) {
            return standard::verify(self.tolerance, delivery, keys);
        }
        if !hashing::any_token(keys, delivery.header(TOKEN)?.as_bytes()) {
            return Err(SignatureError::Mismatch);
        }
        Ok(SignedId::None)
    }

    fn event(&self) -> &'static [EventField<'static>] {
        // System hooks only have the second one.
        &[
            EventField::Body("/object_kind"),
            EventField::Body("/event_name"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expired, malformed, tolerance, Signed};
    use super::{Gitlab, SignatureError, SignedId, Verifier, TOKEN};

    const SECRET: &str = "a token of 24 characters";
    const OTHER: &str = "another good token of ours";
    const BODY: &[u8] = br#"{"object_kind":"issue"}"#;
    const SCHEME: Gitlab = Gitlab {
        tolerance: tolerance(300),
    };

    fn with_token(token: &str) -> Signed<'static> {
        Signed::new(&SCHEME, &[OTHER, SECRET], BODY, 0).header(TOKEN, token)
    }

    // GitLab signs as Standard Webhooks does: the same example.
    fn signed() -> Signed<'static> {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        Signed::new(
            &SCHEME,
            &[secret],
            br#"{"test": 2432232314}"#,
            1_614_265_330,
        )
        .header("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
        .header("webhook-timestamp", "1614265330")
        .header(
            "webhook-signature",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        )
    }

    #[test]
    fn a_token_must_be_one_of_the_secrets() {
        assert_eq!(with_token(SECRET).verify(), Ok(SignedId::None));
        assert_eq!(with_token(OTHER).verify(), Ok(SignedId::None));
        for wrong in [
            "",
            "a",
            "a token of 24 character",
            "a token of 24 characterss",
        ] {
            let found = with_token(wrong).verify();
            assert_eq!(found, Err(SignatureError::Mismatch), "{wrong}");
        }
        let missing = with_token(SECRET).without(TOKEN);
        assert_eq!(missing.verify(), malformed(TOKEN));
    }

    #[test]
    fn a_signing_token_signs_id_time_and_body() {
        assert_eq!(signed().verify(), Ok(SignedId::Header("webhook-id")));
        let other = signed().body(b"{}");
        assert_eq!(other.verify(), Err(SignatureError::Mismatch));
        assert_eq!(signed().at(1_614_265_631).verify(), expired(300));
        // A token proves nothing where only a signature is configured.
        let token = signed().without("webhook-signature");
        let token = token.header(TOKEN, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(token.verify(), malformed("webhook-signature"));
    }

    #[test]
    fn with_both_kinds_of_secrets_a_signature_counts_if_there_is_one() {
        let secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SECRET];
        let both = signed().secrets(&secrets).header(TOKEN, SECRET);
        assert_eq!(both.verify(), Ok(SignedId::Header("webhook-id")));
        let altered = both.clone().body(b"{}");
        assert_eq!(altered.verify(), Err(SignatureError::Mismatch));
        let unsigned = both.clone().without("webhook-signature");
        assert_eq!(unsigned.verify(), Ok(SignedId::None));
        // Until the signing token is known here, the token counts.
        assert_eq!(both.secrets(&[SECRET]).verify(), Ok(SignedId::None));
    }

    #[test]
    fn weak_secrets_of_both_kinds_are_refused() {
        for weak in ["fifteen charact", "whsec_eA==", "whsec_not base64 at all"] {
            assert!(SCHEME.key(weak).is_err(), "{weak}");
        }
    }
}
