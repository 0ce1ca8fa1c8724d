//! Slack: `X-Slack-Signature: v0=<hex>`, the HMAC-SHA256 of `v0:<time>:<body>`. Events are JSON; interactions have their JSON in
//! a form's field `payload`; slash commands are forms. Slack checks an address with an event `url_verification`.

use contracts::webhooks::{Algorithm, Encoding, Tolerance};
use serde_json::Value;

use super::{
    hashing, secret, timestamp, Delivery, EventField, Forms, Key, SignatureError, SignedId,
    Verifier,
};

const SIGNATURE: &str = "x-slack-signature";
const TIME: &str = "x-slack-request-timestamp";

pub(super) struct Slack {
    pub tolerance: Tolerance,
}

impl Verifier for Slack {
    fn key(&self, secret: &str) -> Result<Key, String> {
        secret::plain(secret).map(Key::Signing)
    }

    fn verify<'s>(
        &'s self,
        delivery: &Delivery<'_>,
        keys: &[Key],
    ) -> Result<SignedId<'s>, SignatureError> {
        let time = delivery.header(TIME)?;
        let signed_s = timestamp::read(TIME, time)?;
        let signature = delivery
            .header(SIGNATURE)?
            .strip_prefix("v0=")
            .and_then(|digits| hashing::decode(Encoding::Hex, digits))
            .ok_or_else(|| SignatureError::malformed(SIGNATURE))?;
        let parts = [b"v0:", time.as_bytes(), b":", delivery.body];
        if !hashing::any_signed(Algorithm::Sha256, keys, &parts, &[signature]) {
            return Err(SignatureError::Mismatch);
        }
        timestamp::check(self.tolerance, signed_s, delivery)?;
        Ok(SignedId::Body("/event_id"))
    }

    fn event(&self) -> &'static [EventField<'static>] {
        // Of an event, an interaction and a slash command.
        &[
            EventField::Body("/event/type"),
            EventField::Body("/type"),
            EventField::Body("/command"),
        ]
    }

    fn forms(&self) -> Forms {
        Forms::PayloadOrFields
    }

    fn challenge<'a>(&self, payload: &'a Value) -> Option<&'a str> {
        if payload.get("type")? != "url_verification" {
            return None;
        }
        payload.get("challenge")?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{expired, malformed, tolerance, Signed};
    use super::{SignatureError, SignedId, Slack, Verifier, SIGNATURE as HEADER, TIME};

    const SCHEME: Slack = Slack {
        tolerance: tolerance(300),
    };
    // The example of Slack's documentation.
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const OTHER: &str = "00000000000000000000000000000000";
    const NOW_S: u64 = 1_531_420_618;
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow\
        &channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner\
        &command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands\
        %2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn example() -> Signed<'static> {
        Signed::new(&SCHEME, &[SECRET], BODY.as_bytes(), NOW_S)
            .header(HEADER, SIGNATURE)
            .header(TIME, "1531420618")
    }

    #[test]
    fn the_documented_example_matches_during_a_secret_rotation() {
        assert_eq!(example().verify(), Ok(SignedId::Body("/event_id")));
        for secrets in [[OTHER, SECRET], [SECRET, OTHER]] {
            assert!(example().secrets(&secrets).verify().is_ok());
        }
    }

    #[test]
    fn every_signed_part_counts() {
        let mismatch = Err(SignatureError::Mismatch);
        assert_eq!(example().secrets(&[OTHER]).verify(), mismatch);
        assert_eq!(example().body(b"text=").verify(), mismatch);
        let later = example().header(TIME, "1531420619");
        assert_eq!(later.verify(), mismatch);
        assert_eq!(example().header(HEADER, "v0=").verify(), mismatch);
        for signature in ["", &SIGNATURE[3..], "v1=a2", "v0=a"] {
            let found = example().header(HEADER, signature).verify();
            assert_eq!(found, malformed(HEADER), "{signature}");
        }
        for time in ["", "-1", "1531420618 "] {
            let found = example().header(TIME, time).verify();
            assert_eq!(found, malformed(TIME), "{time}");
        }
        for missing in [HEADER, TIME] {
            assert_eq!(example().without(missing).verify(), malformed(missing));
        }
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

    #[test]
    fn only_the_check_of_an_address_has_a_challenge() {
        let check = json!({"type": "url_verification", "challenge": "3eZbrw", "token": "x"});
        assert_eq!(SCHEME.challenge(&check), Some("3eZbrw"));
        for other in [
            json!({"type": "event_callback", "challenge": "3eZbrw"}),
            json!({"type": "url_verification", "challenge": 1}),
            json!({"challenge": "3eZbrw"}),
            json!([]),
        ] {
            assert_eq!(SCHEME.challenge(&other), None, "{other}");
        }
    }
}
