//! The public keys of one issuer (RFC 7517). Pure.

use contracts::credentials::Algorithm as Pinned;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The shortest RSA modulus that is accepted, in characters of base64: 2048 bits.
const MIN_MODULUS: usize = 342;

/// One key, and what it may verify.
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// The keys that can verify what the issuer's tokens are signed with.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a document. A key that is of no use here is left out: other programs may use it.
    pub fn parse(json: &[u8], pinned: &[Pinned]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(json)
            .map_err(|error| format!("it is not a set of keys (line {})", error.line()))?;
        let keys: Vec<Key> = document
            .keys
            .into_iter()
            .filter_map(|key| usable(&serde_json::from_value(key).ok()?, pinned))
            .collect();
        if keys.is_empty() {
            return Err("none of its keys fits the algorithms of the issuer".to_owned());
        }
        Ok(Self(keys))
    }

    /// Returns the key of a token. One without an id must be the only key that fits.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        });
        let first = fitting.next()?;
        fitting.next().is_none().then_some(&first.decoding)
    }
}

fn usable(jwk: &Jwk, pinned: &[Pinned]) -> Option<Key> {
    let purpose = jwk.common.public_key_use.as_ref();
    if purpose.is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let own = jwk.common.key_algorithm;
    let algorithms: Vec<Algorithm> = pinned
        .iter()
        .filter(|one| fits(jwk, **one))
        .map(|one| of_library(*one))
        .filter(|(_, name)| own.is_none_or(|own| own == *name))
        .map(|(algorithm, _)| algorithm)
        .collect();
    (!algorithms.is_empty()).then_some(Key {
        id: jwk.common.key_id.clone(),
        algorithms,
        decoding: DecodingKey::from_jwk(jwk).ok()?,
    })
}

/// Whether the type of the key is the one that the algorithm needs. A symmetric key fits none.
fn fits(jwk: &Jwk, algorithm: Pinned) -> bool {
    use Pinned as P;
    match (&jwk.algorithm, algorithm) {
        (
            AlgorithmParameters::RSA(rsa),
            P::Rs256 | P::Rs384 | P::Rs512 | P::Ps256 | P::Ps384 | P::Ps512,
        ) => rsa.n.len() >= MIN_MODULUS,
        (AlgorithmParameters::EllipticCurve(ec), P::Es256) => ec.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(ec), P::Es384) => ec.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(pair), P::EdDsa) => pair.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}

fn of_library(algorithm: Pinned) -> (Algorithm, KeyAlgorithm) {
    match algorithm {
        Pinned::Rs256 => (Algorithm::RS256, KeyAlgorithm::RS256),
        Pinned::Rs384 => (Algorithm::RS384, KeyAlgorithm::RS384),
        Pinned::Rs512 => (Algorithm::RS512, KeyAlgorithm::RS512),
        Pinned::Ps256 => (Algorithm::PS256, KeyAlgorithm::PS256),
        Pinned::Ps384 => (Algorithm::PS384, KeyAlgorithm::PS384),
        Pinned::Ps512 => (Algorithm::PS512, KeyAlgorithm::PS512),
        Pinned::Es256 => (Algorithm::ES256, KeyAlgorithm::ES256),
        Pinned::Es384 => (Algorithm::ES384, KeyAlgorithm::ES384),
        Pinned::EdDsa => (Algorithm::EdDSA, KeyAlgorithm::EdDSA),
    }
}

#[cfg(test)]
mod tests {
    use contracts::credentials::Algorithm as Pinned;
    use jsonwebtoken::Algorithm;
    use serde_json::{json, Value};

    use super::KeySet;

    fn parse(keys: &[Value], pinned: &[Pinned]) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), pinned)
    }

    fn rsa(id: &str, length: usize) -> Value {
        json!({"kty": "RSA", "kid": id, "n": "A".repeat(length), "e": "AQAB"})
    }

    #[test]
    fn a_key_serves_only_the_algorithm_of_its_type() {
        let ec = json!({"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA"});
        let pinned = [Pinned::Rs256, Pinned::Es256, Pinned::Es384];
        let keys = parse(&[rsa("rsa", 342), ec], &pinned).unwrap();
        for (id, algorithm, found) in [
            (Some("rsa"), Algorithm::RS256, true),
            (Some("rsa"), Algorithm::RS384, false),
            (Some("rsa"), Algorithm::ES256, false),
            (Some("rsa"), Algorithm::HS256, false),
            (Some("ec"), Algorithm::ES256, true),
            (Some("ec"), Algorithm::ES384, false),
            (Some("ec"), Algorithm::RS256, false),
            (Some("other"), Algorithm::ES256, false),
            (None, Algorithm::ES256, true),
        ] {
            let key = keys.find(id, algorithm);
            assert_eq!(key.is_some(), found, "{id:?} {algorithm:?}");
        }
        let two = parse(&[rsa("a", 342), rsa("b", 342)], &pinned).unwrap();
        assert!(two.find(None, Algorithm::RS256).is_none(), "ambiguous");
    }

    #[test]
    fn a_key_that_is_of_no_use_is_left_out() {
        let symmetric = json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0"});
        let mut encryption = rsa("b", 342);
        encryption["use"] = "enc".into();
        let mut of_other_algorithm = rsa("c", 342);
        of_other_algorithm["alg"] = "RS512".into();
        let useless = [
            symmetric,
            encryption,
            of_other_algorithm,
            rsa("short", 341),
            json!({"kty": "new"}),
            json!(7),
        ];
        assert!(parse(&useless, &[Pinned::Rs256]).is_err());
        let with_good = [&useless[..], &[rsa("good", 342)]].concat();
        let keys = parse(&with_good, &[Pinned::Rs256]).unwrap();
        assert!(keys.find(None, Algorithm::RS256).is_some());
        assert!(KeySet::parse(b"[]", &[Pinned::Rs256]).is_err());
    }
}
