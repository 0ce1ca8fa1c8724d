//! How secrets are written, and how strong they must be.

use std::ops::RangeInclusive;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use contracts::webhooks::{Encoding, SecretEncoding};

use super::hashing::decode;

/// Anyone who has seen one delivery can try shorter secrets until one fits.
const MIN_BYTES: usize = 16;

/// Length of a key of Standard Webhooks, by the specification.
const STANDARD_BYTES: RangeInclusive<usize> = 24..=64;

/// The prefix of the secrets of Standard Webhooks; Stripe's have it too, as a part of the key.
pub(super) const PREFIX: &str = "whsec_";

/// Returns a secret whose bytes are the key.
pub(super) fn plain(secret: &str) -> Result<Vec<u8>, String> {
    let random = secret.strip_prefix(PREFIX).unwrap_or(secret);
    if random.len() < MIN_BYTES {
        return Err(format!(
            "must have at least {MIN_BYTES} characters; generate it, for example with `openssl rand -hex 32`"
        ));
    }
    Ok(secret.as_bytes().to_vec())
}

/// Returns the key of a secret that is written as `encoding` says.
pub(super) fn encoded(encoding: SecretEncoding, secret: &str) -> Result<Vec<u8>, String> {
    let (name, encoding) = match encoding {
        SecretEncoding::Plain => return plain(secret),
        SecretEncoding::Hex => ("hex", Encoding::Hex),
        SecretEncoding::Base64 => ("base64", Encoding::Base64),
        SecretEncoding::Base64url => ("base64url", Encoding::Base64url),
    };
    decode(encoding, secret)
        .filter(|key| key.len() >= MIN_BYTES)
        .ok_or_else(|| format!("must be the {name} of at least {MIN_BYTES} bytes"))
}

/// Returns the key of a secret of Standard Webhooks.
pub(super) fn standard(secret: &str) -> Result<Vec<u8>, String> {
    let text = secret.strip_prefix(PREFIX).unwrap_or(secret);
    BASE64
        .decode(text)
        .ok()
        .filter(|key| STANDARD_BYTES.contains(&key.len()))
        .ok_or_else(|| {
            let (least, most) = (STANDARD_BYTES.start(), STANDARD_BYTES.end());
            format!("must be {PREFIX} and the base64 of {least} to {most} bytes, as the sender shows it")
        })
}

#[cfg(test)]
mod tests {
    use super::{encoded, plain, standard};
    use contracts::webhooks::SecretEncoding;

    #[test]
    fn a_plain_secret_has_at_least_16_characters_of_its_own() {
        for weak in [
            "",
            "x",
            "fifteen charact",
            "whsec_",
            "whsec_fifteen charact",
        ] {
            assert!(plain(weak).is_err(), "{weak}");
        }
        assert_eq!(plain("sixteen characte").unwrap(), b"sixteen characte");
        let stripe = "whsec_sixteen characte";
        assert_eq!(plain(stripe).unwrap(), stripe.as_bytes());
    }

    #[test]
    fn an_encoded_secret_has_at_least_16_bytes() {
        for (encoding, text, usable) in [
            (SecretEncoding::Hex, "0b".repeat(16), true),
            (SecretEncoding::Hex, "0b".repeat(15), false),
            (
                SecretEncoding::Hex,
                "not hexadecimal, but long".to_owned(),
                false,
            ),
            (
                SecretEncoding::Base64,
                "eHh4eHh4eHh4eHh4eHh4eA==".to_owned(),
                true,
            ),
            // 15 bytes, whose base64 has 20 characters
            (
                SecretEncoding::Base64,
                "eHh4eHh4eHh4eHh4eHh4".to_owned(),
                false,
            ),
            (
                SecretEncoding::Base64url,
                "-_-_-_-_-_-_-_-_-_-_-w".to_owned(),
                true,
            ),
            (SecretEncoding::Base64url, "-_-_-_-_".to_owned(), false),
            (SecretEncoding::Plain, "sixteen characte".to_owned(), true),
        ] {
            assert_eq!(encoded(encoding, &text).is_ok(), usable, "{text}");
        }
    }

    #[test]
    fn a_standard_secret_is_base64_of_24_to_64_bytes() {
        assert!(standard("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
        for wrong in [
            "",
            "whsec_",
            "whsec_not base64",
            "hunter2!",
            "whsec_eA==",
            // 23 and 65 bytes
            "whsec_eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=",
            "whsec_eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=",
        ] {
            assert!(standard(wrong).is_err(), "{wrong}");
        }
    }
}
