//! A secret that the sender puts into a header as it is. It proves the sender, and neither the body nor a time: use it only where
//! the sender offers nothing better, and only over TLS.

use contracts::webhooks::SharedSecret as Options;

use super::{hashing, secret, Delivery, EventField, Key, SignatureError, SignedId, Verifier};

pub(super) struct SharedSecret {
    pub options: Options,
}

impl Verifier for SharedSecret {
    fn key(&self, secret: &str) -> Result<Key, String> {
        secret::plain(secret).map(Key::Token)
    }

    fn verify<'s>(
        &'s self,
        delivery: &Delivery<'_>,
        keys: &[Key],
    ) -> Result<SignedId<'s>, SignatureError> {
        let header = self.options.header.as_str();
        let token = self.options.prefix.strip(delivery.header(header)?);
        let token = token.ok_or_else(|| SignatureError::malformed(header))?;
        if !hashing::any_token(keys, token.as_bytes()) {
            return Err(SignatureError::Mismatch);
        }
        Ok(SignedId::None)
    }

    /// The source says where the event is.
    fn event(&self) -> &'static [EventField<'static>] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use contracts::webhooks::SharedSecret as Options;

    use super::super::tests::{malformed, Signed};
    use super::{SharedSecret, SignatureError, SignedId, Verifier};

    const SECRET: &str = "a secret of 24 character";
    const OTHER: &str = "another good secret";

    fn scheme(prefix: &str) -> SharedSecret {
        let options = Options {
            header: "Authorization".to_owned().try_into().unwrap(),
            prefix: prefix.to_owned().try_into().unwrap(),
        };
        SharedSecret { options }
    }

    #[test]
    fn the_header_must_hold_one_of_the_secrets() {
        let scheme = scheme("Bearer ");
        let sent = |text: &str| {
            let signed = Signed::new(&scheme, &[OTHER, SECRET], b"{}", 0);
            signed.header("authorization", text).verify()
        };
        assert_eq!(sent("Bearer a secret of 24 character"), Ok(SignedId::None));
        assert_eq!(sent("Bearer another good secret"), Ok(SignedId::None));
        for wrong in [
            "Bearer ",
            "Bearer a secret",
            "Bearer a secret of 24 characterX",
        ] {
            assert_eq!(sent(wrong), Err(SignatureError::Mismatch), "{wrong}");
        }
        for wrong in ["", SECRET, "bearer a secret of 24 character"] {
            assert_eq!(sent(wrong), malformed("authorization"), "{wrong}");
        }
        let missing = Signed::new(&scheme, &[SECRET], b"{}", 0).verify();
        assert_eq!(missing, malformed("authorization"));
    }

    #[test]
    fn a_weak_secret_is_refused() {
        assert!(scheme("").key("fifteen charact").is_err());
        assert!(scheme("").key(SECRET).is_ok());
    }
}
