//! A signed delivery that the tests of the schemes change part by part.

use contracts::webhooks::Tolerance;

use super::{Delivery, Key, SignatureError, SignedId, Verifier};

pub(super) const fn tolerance(seconds: u64) -> Tolerance {
    Tolerance { seconds }
}

pub(super) fn malformed<T>(header: &str) -> Result<T, SignatureError> {
    Err(SignatureError::malformed(header))
}

pub(super) fn expired<T>(tolerance_s: u64) -> Result<T, SignatureError> {
    Err(SignatureError::Expired { tolerance_s })
}

#[derive(Clone)]
pub(super) struct Signed<'v> {
    scheme: &'v dyn Verifier,
    keys: Vec<Key>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    now_s: u64,
}

impl<'v> Signed<'v> {
    pub fn new(scheme: &'v dyn Verifier, secrets: &[&str], body: &[u8], now_s: u64) -> Self {
        let signed = Self {
            scheme,
            keys: Vec::new(),
            headers: Vec::new(),
            body: body.to_vec(),
            now_s,
        };
        signed.secrets(secrets)
    }

    pub fn secrets(mut self, secrets: &[&str]) -> Self {
        let keys = secrets.iter().map(|secret| self.scheme.key(secret));
        self.keys = keys.collect::<Result<_, _>>().unwrap();
        self
    }

    pub fn keys(mut self, keys: &[Key]) -> Self {
        self.keys = keys.to_vec();
        self
    }

    pub fn scheme(mut self, scheme: &'v dyn Verifier) -> Self {
        self.scheme = scheme;
        self
    }

    /// Sets a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        let mut signed = self.without(name);
        signed.headers.push((name.to_owned(), value.to_owned()));
        signed
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub fn at(mut self, now_s: u64) -> Self {
        self.now_s = now_s;
        self
    }

    pub fn verify(&self) -> Result<SignedId<'v>, SignatureError> {
        let header = |name: &str| {
            let found = self.headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        let delivery = Delivery {
            header: &header,
            body: &self.body,
            now_s: self.now_s,
        };
        self.scheme.verify(&delivery, &self.keys)
    }
}
