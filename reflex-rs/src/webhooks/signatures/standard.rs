//! Standard Webhooks: HMAC-SHA256 of `<id>.<timestamp>.<body>`, with any number of signatures in one header during a secret
//! rotation. Only `v1` signatures are symmetric; others are ignored.

use std::ops::RangeInclusive;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use hmac::Mac;

use super::{mac, Delivery, FieldLocation, Key, SignatureError, Verifier};

/// How far the signed time may be from the store's clock, in either direction. The specification's libraries use the same.
const TOLERANCE_S: u64 = 300;
/// More signatures than any sender has secrets; more would only cost time.
const MAX_SIGNATURES: usize = 16;

/// Length of a key, by the specification.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

pub(super) struct Standard;

impl Verifier for Standard {
    fn key(&self, secret: &str) -> Result<Key, &'static str> {
        let text = secret.strip_prefix("whsec_").unwrap_or(secret);
        BASE64
            .decode(text)
            .ok()
            .filter(|key| KEY_BYTES.contains(&key.len()))
            .map(Key)
            .ok_or("must be whsec_ and the base64 of 24 to 64 bytes, as the sender shows it")
    }

    fn verify(&self, delivery: &Delivery<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        let header = |name| (delivery.header)(name).ok_or(SignatureError::Missing);
        let id = header("webhook-id")?;
        let timestamp = header("webhook-timestamp")?;
        // Digits only: the text that is signed and the number that is compared with the clock must be the same.
        let signed_s: u64 = Some(timestamp)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or(SignatureError::Missing)?;
        let parts = [
            id.as_bytes(),
            b".",
            timestamp.as_bytes(),
            b".",
            delivery.body,
        ];
        let signatures: Vec<Vec<u8>> = header("webhook-signature")?
            .split(' ')
            .take(MAX_SIGNATURES)
            .filter_map(|one| BASE64.decode(one.strip_prefix("v1,")?).ok())
            .collect();
        // The body is hashed once for each key, however many signatures there are.
        let matches = !signatures.is_empty()
            && keys.iter().filter_map(|key| mac(key, &parts)).any(|mac| {
                signatures
                    .iter()
                    .any(|signature| mac.clone().verify_slice(signature).is_ok())
            });
        if !matches {
            return Err(SignatureError::Mismatch);
        }
        if signed_s.abs_diff(delivery.now_s) > TOLERANCE_S {
            return Err(SignatureError::Expired);
        }
        Ok(())
    }

    fn signed_id(&self) -> Option<FieldLocation> {
        Some(FieldLocation::Header("webhook-id"))
    }

    fn event(&self) -> FieldLocation {
        FieldLocation::Body("/type")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::verify;
    use super::{SignatureError, Standard, Verifier};

    // The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const STAMP: &str = "1614265330";
    const NOW_S: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn signed<'a>(id: &'a str, stamp: &'a str, signature: &'a str) -> [(&'a str, &'a str); 3] {
        [
            ("webhook-id", id),
            ("webhook-timestamp", stamp),
            ("webhook-signature", signature),
        ]
    }

    #[test]
    fn the_published_example_matches_also_among_others() {
        let several = format!("v1,bm9wZQ== v1a,b3RoZXI= {SIGNATURE}");
        for signature in [SIGNATURE, several.as_str()] {
            assert_eq!(
                verify(
                    &Standard,
                    &[SECRET],
                    &signed(ID, STAMP, signature),
                    BODY,
                    NOW_S
                ),
                Ok(())
            );
        }
        let both = ["whsec_bm90IHRoZSBmaXJzdCBzZWNyZXQgYnV0IG9uZQ==", SECRET];
        assert_eq!(
            verify(&Standard, &both, &signed(ID, STAMP, SIGNATURE), BODY, NOW_S),
            Ok(())
        );
    }

    #[test]
    fn the_signed_time_must_be_recent() {
        let at = |now_s| {
            verify(
                &Standard,
                &[SECRET],
                &signed(ID, STAMP, SIGNATURE),
                BODY,
                now_s,
            )
        };
        assert_eq!(at(NOW_S + 300), Ok(()));
        assert_eq!(at(NOW_S - 300), Ok(()));
        assert_eq!(at(NOW_S + 301), Err(SignatureError::Expired));
        assert_eq!(at(NOW_S - 301), Err(SignatureError::Expired));
    }

    #[test]
    fn every_signed_part_counts() {
        let verify_parts = |id, stamp, signature, body| {
            verify(
                &Standard,
                &[SECRET],
                &signed(id, stamp, signature),
                body,
                NOW_S,
            )
        };
        for (id, stamp, signature, body) in [
            ("msg_x", STAMP, SIGNATURE, BODY),
            (ID, "1614265331", SIGNATURE, BODY),
            (ID, STAMP, SIGNATURE, br#"{"test": 2432232315}"#.as_slice()),
            (ID, STAMP, &SIGNATURE[3..], BODY),
            (
                ID,
                STAMP,
                "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                BODY,
            ),
            (ID, STAMP, "", BODY),
        ] {
            assert_eq!(
                verify_parts(id, stamp, signature, body),
                Err(SignatureError::Mismatch),
                "{id} {stamp} {signature}"
            );
        }
        for stamp in [
            "",
            "+1614265330",
            "1614265330.0",
            "99999999999999999999",
            "soon",
        ] {
            assert_eq!(
                verify_parts(ID, stamp, SIGNATURE, BODY),
                Err(SignatureError::Missing),
                "{stamp}"
            );
        }
        for missing in 0..3 {
            let mut headers = signed(ID, STAMP, SIGNATURE).to_vec();
            headers.remove(missing);
            assert_eq!(
                super::super::tests::verify(&Standard, &[SECRET], &headers, BODY, NOW_S),
                Err(SignatureError::Missing)
            );
        }
    }

    #[test]
    fn a_secret_that_is_not_base64_or_has_the_wrong_length_is_refused() {
        assert!(Standard.key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
        for wrong in [
            "",
            "whsec_",
            "whsec_not base64",
            "hunter2!",
            "whsec_eA==",
            // 23 and 65 bytes
            "whsec_eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=",
            "whsec_eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=",
        ] {
            assert!(Standard.key(wrong).is_err(), "{wrong}");
        }
    }
}
