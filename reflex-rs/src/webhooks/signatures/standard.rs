//! Standard Webhooks: HMAC-SHA256 of `<id>.<timestamp>.<body>`, with any number of signatures in one header during a secret
//! rotation. Only `v1` signatures are symmetric; others are ignored. Svix names the headers `svix-*`.

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use contracts::webhooks::{Algorithm, Tolerance};

use super::{
    hashing, secret, timestamp, Delivery, EventField, Key, SignatureError, SignedId, Verifier,
};

/// More signatures than any sender has secrets; more would only cost time.
const MAX_SIGNATURES: usize = 16;

/// The headers of one delivery. Those of different families are never mixed.
struct Headers {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

const STANDARD: Headers = Headers {
    id: "webhook-id",
    timestamp: "webhook-timestamp",
    signature: "webhook-signature",
};
const SVIX: Headers = Headers {
    id: "svix-id",
    timestamp: "svix-timestamp",
    signature: "svix-signature",
};

pub(super) struct Standard {
    pub tolerance: Tolerance,
}

impl Verifier for Standard {
    fn key(&self, secret: &str) -> Result<Key, String> {
        secret::standard(secret).map(Key::Signing)
    }

    fn verify<'s>(
        &'s self,
        delivery: &Delivery<'_>,
        keys: &[Key],
    ) -> Result<SignedId<'s>, SignatureError> {
        let svix = is_signed_with(&SVIX, delivery) && !is_signed_with(&STANDARD, delivery);
        let headers = if svix { &SVIX } else { &STANDARD };
        verify_with(headers, self.tolerance, delivery, keys)
    }

    fn event(&self) -> &'static [EventField<'static>] {
        &[EventField::Body("/type")]
    }
}

/// Whether a delivery has a signature of Standard Webhooks, right or wrong.
pub(super) fn is_signed(delivery: &Delivery<'_>) -> bool {
    is_signed_with(&STANDARD, delivery)
}

fn is_signed_with(headers: &Headers, delivery: &Delivery<'_>) -> bool {
    (delivery.header)(headers.signature).is_some()
}

/// Verifies the headers `webhook-*`.
pub(super) fn verify(
    tolerance: Tolerance,
    delivery: &Delivery<'_>,
    keys: &[Key],
) -> Result<SignedId<'static>, SignatureError> {
    verify_with(&STANDARD, tolerance, delivery, keys)
}

fn verify_with(
    headers: &Headers,
    tolerance: Tolerance,
    delivery: &Delivery<'_>,
    keys: &[Key],
) -> Result<SignedId<'static>, SignatureError> {
    let id = delivery.header(headers.id)?;
    let time = delivery.header(headers.timestamp)?;
    let signed_s = timestamp::read(headers.timestamp, time)?;
    let signatures: Vec<Vec<u8>> = delivery
        .header(headers.signature)?
        .split(' ')
        .filter_map(|one| one.strip_prefix("v1,"))
        .take(MAX_SIGNATURES)
        .filter_map(|one| BASE64.decode(one).ok())
        .collect();
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", delivery.body];
    if !hashing::any_signed(Algorithm::Sha256, keys, &parts, &signatures) {
        return Err(SignatureError::Mismatch);
    }
    timestamp::check(tolerance, signed_s, delivery)?;
    Ok(SignedId::Header(headers.id))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expired, malformed, tolerance, Signed};
    use super::{SignatureError, SignedId, Standard};

    // The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_bm90IHRoZSBmaXJzdCBzZWNyZXQgYnV0IG9uZQ==";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIME: &str = "1614265330";
    const NOW_S: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const SCHEME: Standard = Standard {
        tolerance: tolerance(300),
    };

    fn example() -> Signed<'static> {
        Signed::new(&SCHEME, &[SECRET], BODY, NOW_S)
            .header("webhook-id", ID)
            .header("webhook-timestamp", TIME)
            .header("webhook-signature", SIGNATURE)
    }

    #[test]
    fn the_published_example_matches_also_among_others() {
        let several = format!("v1,bm9wZQ== v1a,b3RoZXI= {SIGNATURE}");
        for signature in [SIGNATURE, several.as_str()] {
            let found = example().header("webhook-signature", signature).verify();
            assert_eq!(found, Ok(SignedId::Header("webhook-id")));
        }
        for secrets in [[OTHER, SECRET], [SECRET, OTHER]] {
            assert!(example().secrets(&secrets).verify().is_ok());
        }
    }

    #[test]
    fn the_headers_may_be_named_as_svix_names_them_and_are_never_mixed() {
        let svix = Signed::new(&SCHEME, &[SECRET], BODY, NOW_S)
            .header("svix-id", ID)
            .header("svix-timestamp", TIME)
            .header("svix-signature", SIGNATURE);
        assert_eq!(svix.verify(), Ok(SignedId::Header("svix-id")));
        for missing in ["svix-id", "svix-timestamp"] {
            let mixed = svix.clone().without(missing);
            let mixed = mixed.header("webhook-id", ID);
            let mixed = mixed.header("webhook-timestamp", TIME);
            assert_eq!(mixed.verify(), malformed(missing));
        }
        let wrong = svix.header("webhook-id", "msg_x");
        let wrong = wrong.header("webhook-timestamp", TIME);
        let wrong = wrong.header("webhook-signature", SIGNATURE);
        assert_eq!(wrong.verify(), Err(SignatureError::Mismatch));
    }

    #[test]
    fn the_signed_time_must_be_recent() {
        for (now_s, verdict) in [
            (NOW_S + 300, true),
            (NOW_S - 300, true),
            (NOW_S + 301, false),
            (NOW_S - 301, false),
        ] {
            let found = example().at(now_s).verify();
            if verdict {
                assert!(found.is_ok(), "{now_s}");
            } else {
                assert_eq!(found, expired(300), "{now_s}");
            }
        }
        let strict = Standard {
            tolerance: tolerance(1),
        };
        assert_eq!(example().scheme(&strict).at(NOW_S + 2).verify(), expired(1));
    }

    #[test]
    fn every_signed_part_counts() {
        let unknown = SIGNATURE.replace("v1,", "v2,");
        for (name, value) in [
            ("webhook-id", "msg_x"),
            ("webhook-timestamp", "1614265331"),
            ("webhook-signature", &SIGNATURE[3..]),
            ("webhook-signature", &unknown),
            ("webhook-signature", "v1,"),
            ("webhook-signature", ""),
        ] {
            let found = example().header(name, value).verify();
            assert_eq!(found, Err(SignatureError::Mismatch), "{name}: {value}");
        }
        let altered = example().body(br#"{"test": 2432232315}"#);
        assert_eq!(altered.verify(), Err(SignatureError::Mismatch));
        assert_eq!(
            example().secrets(&[OTHER]).verify(),
            Err(SignatureError::Mismatch)
        );
        for time in [
            "",
            "+1614265330",
            "1614265330.0",
            "99999999999999999999",
            "soon",
        ] {
            let found = example().header("webhook-timestamp", time).verify();
            assert_eq!(found, malformed("webhook-timestamp"), "{time}");
        }
        for missing in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            assert_eq!(example().without(missing).verify(), malformed(missing));
        }
    }

    #[test]
    fn a_header_full_of_signatures_costs_no_more_than_sixteen() {
        let wrong = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= ";
        let within = format!("{}{SIGNATURE}", wrong.repeat(15));
        assert!(example()
            .header("webhook-signature", &within)
            .verify()
            .is_ok());
        let beyond = format!("{}{SIGNATURE}", wrong.repeat(16));
        assert_eq!(
            example().header("webhook-signature", &beyond).verify(),
            Err(SignatureError::Mismatch)
        );
    }
}
