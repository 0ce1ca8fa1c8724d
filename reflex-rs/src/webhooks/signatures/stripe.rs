//! Stripe: `Stripe-Signature: t=<time>,v1=<hex>`, the HMAC-SHA256 of `<time>.<body>`; several `v1` while a secret is rotated.
//! Other schemes than `v1` are ignored. The secret is the key as Stripe shows it, with its prefix.

use contracts::webhooks::{Algorithm, Encoding, Tolerance};

use super::{
    hashing, secret, timestamp, Delivery, EventField, Key, SignatureError, SignedId, Verifier,
};

const SIGNATURE: &str = "stripe-signature";
/// More signatures than any sender has secrets; more would only cost time.
const MAX_SIGNATURES: usize = 16;

pub(super) struct Stripe {
    pub tolerance: Tolerance,
}

impl Verifier for Stripe {
    fn key(&self, secret: &str) -> Result<Key, String> {
        secret::plain(secret).map(Key::Signing)
    }

    fn verify<'s>(
        &'s self,
        delivery: &Delivery<'_>,
        keys: &[Key],
    ) -> Result<SignedId<'s>, SignatureError> {
        let items = || {
            let header = delivery.header(SIGNATURE)?.split(',');
            Ok(header.filter_map(|item| item.trim().split_once('=')))
        };
        let values = |name: &'static str| {
            items()
                .map(|items| items.filter_map(move |(key, value)| (key == name).then_some(value)))
        };
        let mut times = values("t")?;
        // With two times it is not clear which one is signed.
        let (Some(time), None) = (times.next(), times.next()) else {
            return Err(SignatureError::malformed(SIGNATURE));
        };
        let signed_s = timestamp::read(SIGNATURE, time)?;
        let signatures: Vec<Vec<u8>> = values("v1")?
            .take(MAX_SIGNATURES)
            .filter_map(|digits| hashing::decode(Encoding::Hex, digits))
            .collect();
        let parts = [time.as_bytes(), b".", delivery.body];
        if !hashing::any_signed(Algorithm::Sha256, keys, &parts, &signatures) {
            return Err(SignatureError::Mismatch);
        }
        timestamp::check(self.tolerance, signed_s, delivery)?;
        Ok(SignedId::Body("/id"))
    }

    fn event(&self) -> &'static [EventField<'static>] {
        &[EventField::Body("/type")]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expired, malformed, tolerance, Signed};
    use super::{Key, SignatureError, SignedId, Stripe, SIGNATURE as HEADER};

    const SCHEME: Stripe = Stripe {
        tolerance: tolerance(300),
    };
    const NOW_S: u64 = 1_533_204_620;
    const V1: &str = "f0bdba6d4eacbd8ad8a3bbadd7248e633ec1477f7899c124c51b39405fa36613";
    const V0: &str = "63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";

    /// The event, secret and signature that Stripe's own libraries are tested with. That secret is too short to be configured.
    fn example() -> Signed<'static> {
        let body = include_bytes!("../../../tests/data/stripe_event.json");
        Signed::new(&SCHEME, &[], body, NOW_S)
            .keys(&[key("webhook_secret")])
            .header(HEADER, &format!("t={NOW_S},v1={V1},v0={V0}"))
    }

    fn key(secret: &str) -> Key {
        Key::Signing(secret.as_bytes().to_vec())
    }

    #[test]
    fn the_published_example_matches_during_a_secret_rotation() {
        assert_eq!(example().verify(), Ok(SignedId::Body("/id")));
        for keys in [
            [key("webhook_secret"), key("another")],
            [key("another"), key("webhook_secret")],
        ] {
            assert!(example().keys(&keys).verify().is_ok());
        }
        let other = "0".repeat(64);
        for header in [
            format!("t={NOW_S},v1={other},v1={V1}"),
            format!("t={NOW_S},v1={V1},v1={other}"),
            format!("v1={V1}, t={NOW_S}"),
        ] {
            assert!(
                example().header(HEADER, &header).verify().is_ok(),
                "{header}"
            );
        }
    }

    #[test]
    fn every_signed_part_counts() {
        for header in [
            format!("t={},v1={V1}", NOW_S + 1),
            format!("t={NOW_S},v0={V1}"),
            format!("t={NOW_S},v1={V0}"),
            format!("t={NOW_S},v1="),
            format!("t={NOW_S}"),
        ] {
            let found = example().header(HEADER, &header).verify();
            assert_eq!(found, Err(SignatureError::Mismatch), "{header}");
        }
        let altered = example().body(b"{}");
        assert_eq!(altered.verify(), Err(SignatureError::Mismatch));
        for header in [
            String::new(),
            format!("v1={V1}"),
            format!("t=,v1={V1}"),
            format!("t=+{NOW_S},v1={V1}"),
            format!("t={NOW_S},t={},v1={V1}", NOW_S + 1),
        ] {
            let found = example().header(HEADER, &header).verify();
            assert_eq!(found, malformed(HEADER), "{header}");
        }
        assert_eq!(example().without(HEADER).verify(), malformed(HEADER));
    }

    #[test]
    fn the_signed_time_must_be_recent() {
        for now_s in [NOW_S - 300, NOW_S + 300] {
            assert!(example().at(now_s).verify().is_ok());
        }
        for now_s in [NOW_S - 301, NOW_S + 301] {
            assert_eq!(example().at(now_s).verify(), expired(300));
        }
    }
}
