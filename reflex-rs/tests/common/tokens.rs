//! Issuers of tokens, with keys of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{encode, Algorithm, EncodingKey, Header};
use serde_json::{json, Value};

/// A key that signs tokens.
pub struct SigningKey {
    pub id: String,
    pub algorithm: Algorithm,
    pub private: EncodingKey,
    /// The public half, as an issuer publishes it.
    pub public: Value,
}

impl SigningKey {
    /// Makes a key of the type that the algorithm needs.
    pub fn new(folder: &Path, id: &str, algorithm: Algorithm) -> Self {
        let (pem, der) = (format!("{id}.pem"), format!("{id}.der"));
        let openssl = |words: &str| openssl(folder, words);
        let words = match algorithm {
            Algorithm::RS256 => "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            Algorithm::ES256 => "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            _ => "-algorithm ed25519",
        };
        openssl(&format!("genpkey {words} -out {pem}"));
        let form = match algorithm {
            Algorithm::RS256 => "rsa -traditional",
            _ => "pkcs8 -topk8 -nocrypt",
        };
        openssl(&format!("{form} -in {pem} -outform DER -out {der}"));
        let private = std::fs::read(folder.join(der)).unwrap();
        let private = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_der(&private),
            Algorithm::ES256 => EncodingKey::from_ec_der(&private),
            _ => EncodingKey::from_ed_der(&private),
        };
        openssl(&format!(
            "pkey -in {pem} -pubout -outform DER -out {id}.pub"
        ));
        let public = std::fs::read(folder.join(format!("{id}.pub"))).unwrap();
        let public = if algorithm == Algorithm::EdDSA {
            // The key is what follows the DER's head of fixed length.
            let x = URL_SAFE_NO_PAD.encode(&public[public.len() - 32..]);
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": id, "x": x})
        } else {
            let mut jwk = Jwk::from_encoding_key(&private, algorithm).unwrap();
            jwk.common.key_id = Some(id.to_owned());
            serde_json::to_value(jwk).unwrap()
        };
        Self {
            id: id.to_owned(),
            algorithm,
            private,
            public,
        }
    }

    pub fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.clone());
        header
    }

    pub fn sign(&self, claims: &Value) -> String {
        encode(&self.header(), claims, &self.private).unwrap()
    }
}

fn openssl(folder: &Path, words: &str) {
    let made = Command::new("openssl")
        .args(words.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "openssl {words}: {error}");
}

/// Publishes the keys in a file, all at once.
pub fn publish(file: &Path, keys: &[&SigningKey]) {
    let keys: Vec<Value> = keys.iter().map(|key| key.public.clone()).collect();
    let whole = file.with_extension("new");
    std::fs::write(&whole, json!({ "keys": keys }).to_string()).unwrap();
    std::fs::rename(whole, file).unwrap();
}

/// Writes the file of issuers: the name, the algorithms and the keys of each.
pub fn credentials_file(folder: &Path, issuers: &[(&str, &str, &str)]) -> PathBuf {
    let mut text = "version: 1\nissuers:\n".to_owned();
    for (issuer, algorithms, jwks) in issuers {
        text += &[
            "  - issuer: ",
            issuer,
            "\n    audience: octollm\n    algorithms: [",
            algorithms,
            "]\n    jwks: ",
            jwks,
            "\n    tenant_claim: org\n    leeway_s: 20\n",
        ]
        .concat();
    }
    let file = folder.join("credentials.yaml");
    std::fs::write(&file, text).unwrap();
    file
}
