//! A sender's own HMAC: the source says in which header the signature is, how it is written and what it signs.

use contracts::webhooks::{HeaderName, Hmac as Options, Part, Tolerance};

use super::{
    hashing, secret, timestamp, Delivery, EventField, Key, SignatureError, SignedId, Verifier,
};

pub(super) struct Hmac {
    pub options: Options,
    pub tolerance: Tolerance,
}

impl Verifier for Hmac {
    fn key(&self, secret: &str) -> Result<Key, String> {
        secret::encoded(self.options.secret_encoding, secret).map(Key::Signing)
    }

    fn verify<'s>(
        &'s self,
        delivery: &Delivery<'_>,
        keys: &[Key],
    ) -> Result<SignedId<'s>, SignatureError> {
        let options = &self.options;
        let header = options.header.as_str();
        let signature = options
            .prefix
            .strip(delivery.header(header)?)
            .and_then(|text| hashing::decode(options.encoding, text))
            .ok_or_else(|| SignatureError::malformed(header))?;
        let id_header = options.id_header.as_ref().map(HeaderName::as_str);
        let time_header = options.timestamp_header.as_ref().map(HeaderName::as_str);
        let id = id_header.map_or(Ok(""), |name| delivery.header(name))?;
        let time = time_header.map_or(Ok(""), |name| delivery.header(name))?;
        let signed_s = time_header
            .map(|name| timestamp::read(name, time))
            .transpose()?;
        let parts: Vec<&[u8]> = options
            .format
            .parts()
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_bytes(),
                Part::Id => id.as_bytes(),
                Part::Timestamp => time.as_bytes(),
                Part::Body => delivery.body,
            })
            .collect();
        if !hashing::any_signed(options.algorithm, keys, &parts, &[signature]) {
            return Err(SignatureError::Mismatch);
        }
        if let Some(signed_s) = signed_s {
            timestamp::check(self.tolerance, signed_s, delivery)?;
        }
        Ok(id_header.map_or(SignedId::None, SignedId::Header))
    }

    /// The source says where the event is.
    fn event(&self) -> &'static [EventField<'static>] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use contracts::webhooks::{self, Scheme};

    use super::super::tests::{expired, malformed, Signed};
    use super::{Hmac, SignatureError, SignedId, Verifier};

    /// The scheme of a source with these options, in YAML.
    fn scheme(options: &str) -> Hmac {
        let file = format!(
            "version: 1\nsources:\n  a:\n    description: x\n    scheme: hmac\n    tenant: t\n    secrets: [env:X]\n    \
             hmac: {{{options}}}\n    event: {{name: e}}\n    events:\n      e: {{kind: k, goal: g, input: {{}}}}\n"
        );
        match webhooks::parse(&file)
            .unwrap()
            .swap_remove("a")
            .unwrap()
            .scheme
        {
            Scheme::Hmac(options, tolerance) => Hmac { options, tolerance },
            other => panic!("{other:?}"),
        }
    }

    // RFC 2202 and RFC 4231, test case 1.
    const KEY: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";
    const SHA256_HEX: &str = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";

    #[test]
    fn published_vectors_match_in_each_encoding() {
        for (options, key, signature) in [
            ("secret_encoding: hex", KEY, SHA256_HEX),
            (
                "secret_encoding: hex, prefix: 'sha256='",
                KEY,
                "sha256=B0344C61D8DB38535CA8AFCEAF0BF12B881DC200C9833DA726E9376C2E32CFF7",
            ),
            (
                "secret_encoding: hex, algorithm: sha1, encoding: base64",
                KEY,
                "thcxhlUFcmTii8C2+zeMjvFGvgA=",
            ),
            (
                "secret_encoding: hex, algorithm: sha1, encoding: base64url",
                KEY,
                "thcxhlUFcmTii8C2-zeMjvFGvgA",
            ),
            (
                "secret_encoding: base64",
                "CwsLCwsLCwsLCwsLCwsLCwsLCws=",
                SHA256_HEX,
            ),
        ] {
            let scheme = scheme(&format!("header: X-Sig, {options}"));
            let signed = Signed::new(&scheme, &[key], b"Hi There", 0).header("x-sig", signature);
            assert_eq!(signed.verify(), Ok(SignedId::None), "{options}");
            let altered = signed.body(b"Hi there");
            assert_eq!(altered.verify(), Err(SignatureError::Mismatch));
        }
    }

    #[test]
    fn the_format_says_what_is_signed() {
        // The example of Standard Webhooks, with names of its own.
        let scheme = scheme(
            "header: X-Sig, prefix: 'v1,', encoding: base64, secret_encoding: base64, id_header: X-Id, \
             timestamp_header: X-Time, format: '{id}.{timestamp}.{body}'",
        );
        let body = br#"{"test": 2432232314}"#;
        let signed = Signed::new(
            &scheme,
            &["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
            body,
            1_614_265_330,
        )
        .header("x-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
        .header("x-time", "1614265330")
        .header("x-sig", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(signed.verify(), Ok(SignedId::Header("x-id")));
        for now_s in [1_614_265_029, 1_614_265_631] {
            assert_eq!(signed.clone().at(now_s).verify(), expired(300));
        }
        for (name, value) in [("x-id", "msg_x"), ("x-time", "1614265331")] {
            let altered = signed.clone().header(name, value);
            assert_eq!(altered.verify(), Err(SignatureError::Mismatch));
        }
        for missing in ["x-id", "x-time", "x-sig"] {
            assert_eq!(signed.clone().without(missing).verify(), malformed(missing));
        }
        for (name, value) in [("x-time", "soon"), ("x-sig", "g0hM"), ("x-sig", "v1,%")] {
            let altered = signed.clone().header(name, value);
            assert_eq!(altered.verify(), malformed(name), "{value}");
        }
    }

    #[test]
    fn a_weak_secret_is_refused_in_each_encoding() {
        for (encoding, weak) in [
            ("plain", "fifteen charact"),
            ("hex", "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
            ("base64", "eHh4eHh4eHh4eHh4eHh4"),
            ("base64url", "eHh4eHh4eHh4eHh4eHh4"),
        ] {
            let scheme = scheme(&format!("header: X-Sig, secret_encoding: {encoding}"));
            assert!(scheme.key(weak).is_err(), "{encoding}");
        }
    }
}
