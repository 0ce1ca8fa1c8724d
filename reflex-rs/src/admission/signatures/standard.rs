//! Standard Webhooks: HMAC-SHA256 of `<id>.<timestamp>.<body>`, and any number of signatures in one header while secrets
//! change. Of its signatures only `v1` is symmetric; others are passed over.

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;

use super::{fits, Delivery, Key, Place, Unproven, Verifier};

/// How far the signed time may lie from ours, in either direction; the specification's libraries take the same.
const WINDOW_S: u64 = 300;
/// More signatures than any sender has secrets; the rest would only cost time.
const MOST_SIGNATURES: usize = 16;

pub(super) struct Standard;

impl Verifier for Standard {
    fn key(&self, secret: &str) -> Result<Key, &'static str> {
        let text = secret.strip_prefix("whsec_").unwrap_or(secret);
        BASE64
            .decode(text)
            .ok()
            .filter(|key| !key.is_empty())
            .map(Key)
            .ok_or("must be whsec_ and base64, as the sender shows it")
    }

    fn verify(&self, delivery: &Delivery<'_>, keys: &[Key]) -> Result<(), Unproven> {
        let header = |name| (delivery.header)(name).ok_or(Unproven::Missing);
        let id = header("webhook-id")?;
        let stamp = header("webhook-timestamp")?;
        // Digits only: what is signed and what is compared with the clock must be the same number.
        let signed_s: u64 = Some(stamp)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or(Unproven::Missing)?;
        let parts = [id.as_bytes(), b".", stamp.as_bytes(), b".", delivery.body];
        let signed = header("webhook-signature")?
            .split(' ')
            .take(MOST_SIGNATURES)
            .filter_map(|one| BASE64.decode(one.strip_prefix("v1,")?).ok())
            .any(|signature| keys.iter().any(|key| fits(key, &parts, &signature)));
        if !signed {
            return Err(Unproven::Forged);
        }
        if signed_s.abs_diff(delivery.now_s) > WINDOW_S {
            return Err(Unproven::Stale);
        }
        Ok(())
    }

    fn delivery_id(&self) -> Place {
        Place::Header("webhook-id")
    }

    fn event(&self) -> Place {
        Place::Body("/type")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::judge;
    use super::{Standard, Unproven, Verifier};

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
    fn the_published_example_fits_also_beside_others() {
        let beside = format!("v1,bm9wZQ== v1a,b3RoZXI= {SIGNATURE}");
        for signature in [SIGNATURE, beside.as_str()] {
            assert_eq!(
                judge(
                    &Standard,
                    &[SECRET],
                    &signed(ID, STAMP, signature),
                    BODY,
                    NOW_S
                ),
                Ok(())
            );
        }
        let both = ["whsec_c2Vjb25k", SECRET];
        assert_eq!(
            judge(&Standard, &both, &signed(ID, STAMP, SIGNATURE), BODY, NOW_S),
            Ok(())
        );
    }

    #[test]
    fn the_time_must_be_near() {
        let at = |now_s| {
            judge(
                &Standard,
                &[SECRET],
                &signed(ID, STAMP, SIGNATURE),
                BODY,
                now_s,
            )
        };
        assert_eq!(at(NOW_S + 300), Ok(()));
        assert_eq!(at(NOW_S - 300), Ok(()));
        assert_eq!(at(NOW_S + 301), Err(Unproven::Stale));
        assert_eq!(at(NOW_S - 301), Err(Unproven::Stale));
    }

    #[test]
    fn every_signed_part_counts() {
        let judge = |id, stamp, signature, body| {
            judge(
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
                judge(id, stamp, signature, body),
                Err(Unproven::Forged),
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
                judge(ID, stamp, SIGNATURE, BODY),
                Err(Unproven::Missing),
                "{stamp}"
            );
        }
        for missing in 0..3 {
            let mut headers = signed(ID, STAMP, SIGNATURE).to_vec();
            headers.remove(missing);
            assert_eq!(
                super::super::tests::judge(&Standard, &[SECRET], &headers, BODY, NOW_S),
                Err(Unproven::Missing)
            );
        }
    }

    #[test]
    fn a_secret_that_is_no_base64_is_refused() {
        assert!(Standard.key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
        for wrong in ["", "whsec_", "whsec_not base64", "hunter2!"] {
            assert!(Standard.key(wrong).is_err(), "{wrong}");
        }
    }
}
