//! HMACs, their text forms, and comparisons in constant time.

use ::hmac::{Hmac, Mac};
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::DecodePaddingMode;
use base64::Engine;
use contracts::webhooks::{Algorithm, Encoding};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::Key;

/// Senders differ in whether they write the padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Whether one of the keys made one of the signatures of the concatenated parts. Each key hashes the parts once, however many
/// signatures there are.
pub(super) fn any_signed(
    algorithm: Algorithm,
    keys: &[Key],
    parts: &[&[u8]],
    signatures: &[Vec<u8>],
) -> bool {
    if signatures.is_empty() {
        return false;
    }
    keys.iter()
        .filter_map(|key| match key {
            Key::Signing(key) => mac(algorithm, key, parts),
            Key::Token(_) => None,
        })
        .any(|mac| signatures.iter().any(|one| equal(one, &mac)))
}

/// Whether one of the keys is this token.
pub(super) fn any_token(keys: &[Key], token: &[u8]) -> bool {
    keys.iter()
        .any(|key| matches!(key, Key::Token(known) if equal(known, token)))
}

/// The bytes that a text of this encoding stands for.
pub(super) fn decode(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Hex => hex::decode(text).ok(),
        Encoding::Base64 => BASE64.decode(text).ok(),
        Encoding::Base64url => BASE64URL.decode(text).ok(),
    }
}

/// `None` cannot happen: HMAC takes a key of any length.
fn mac(algorithm: Algorithm, key: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
    fn finish<M: Mac>(mut mac: M, parts: &[&[u8]]) -> Vec<u8> {
        #[cfg(test)]
        tests::MACS.set(tests::MACS.get() + 1);
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().to_vec()
    }
    Some(match algorithm {
        Algorithm::Sha1 => finish(Hmac::<Sha1>::new_from_slice(key).ok()?, parts),
        Algorithm::Sha256 => finish(Hmac::<Sha256>::new_from_slice(key).ok()?, parts),
        Algorithm::Sha512 => finish(Hmac::<Sha512>::new_from_slice(key).ok()?, parts),
    })
}

/// Takes as long for every text of one length.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{any_signed, any_token, decode, mac};
    use crate::webhooks::signatures::Key;
    use contracts::webhooks::{Algorithm, Encoding};

    thread_local! {
        /// How many HMACs this thread has made.
        pub(super) static MACS: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn each_key_hashes_the_body_once_however_many_signatures_there_are() {
        let keys = [1, 2, 3].map(|byte| Key::Signing(vec![byte; 20]));
        let wrong = vec![vec![0; 32]; 16];
        let before = MACS.get();
        assert!(!any_signed(Algorithm::Sha256, &keys, &[b"body"], &wrong));
        assert_eq!(MACS.get() - before, keys.len());
        // What cannot match is not hashed at all.
        assert!(!any_signed(Algorithm::Sha256, &keys, &[b"body"], &[]));
        assert_eq!(MACS.get() - before, keys.len());
    }

    #[test]
    fn the_vectors_of_rfc_2202_and_rfc_4231_hold() {
        for (algorithm, digest) in [
            (Algorithm::Sha1, "b617318655057264e28bc0b6fb378c8ef146be00"),
            (
                Algorithm::Sha256,
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                Algorithm::Sha512,
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ),
        ] {
            let made = mac(algorithm, &[0x0b; 20], &[b"Hi ", b"There"]).unwrap();
            assert_eq!(hex::encode(made), digest);
        }
    }

    #[test]
    fn only_the_same_bytes_match() {
        let key = Key::Signing(vec![0x0b; 20]);
        let right = mac(Algorithm::Sha256, &[0x0b; 20], &[b"Hi There"]).unwrap();
        let signed = |signatures: &[Vec<u8>]| {
            let keys = [Key::Token(vec![0x0b; 20]), key.clone()];
            any_signed(Algorithm::Sha256, &keys, &[b"Hi There"], signatures)
        };
        assert!(signed(&[vec![0; 32], right.clone()]));
        for wrong in [&[][..], &[vec![]], &[right[..31].to_vec()], &[vec![0; 32]]] {
            assert!(!signed(wrong));
        }
        let tokens = [key, Key::Token(b"token".to_vec())];
        assert!(any_token(&tokens, b"token"));
        for wrong in [&b""[..], b"toke", b"tokens", &[0x0b; 20]] {
            assert!(!any_token(&tokens, wrong));
        }
    }

    #[test]
    fn texts_are_decoded_with_and_without_padding_and_nothing_else() {
        for (encoding, text, bytes) in [
            (Encoding::Hex, "fBff", Some(vec![0xfb, 0xff])),
            (Encoding::Hex, "fbf", None),
            (Encoding::Base64, "+/8=", Some(vec![0xfb, 0xff])),
            (Encoding::Base64, "+/8", Some(vec![0xfb, 0xff])),
            (Encoding::Base64, "-_8=", None),
            (Encoding::Base64, "+/8= ", None),
            (Encoding::Base64url, "-_8", Some(vec![0xfb, 0xff])),
            (Encoding::Base64url, "-_8=", Some(vec![0xfb, 0xff])),
            (Encoding::Base64url, "+/8", None),
        ] {
            assert_eq!(decode(encoding, text), bytes, "{text}");
        }
    }
}
