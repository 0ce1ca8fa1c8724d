//! Reads secrets from where `webhooks.yaml` says they lie.

use contracts::webhooks::Secret;

use crate::admission::signatures::{Key, Verifier};

/// A secret that is there and cannot be used; never quotes it.
#[derive(Debug, thiserror::Error)]
#[error("{place}, named by the webhook source {source_name}, is refused: {why}")]
pub struct SecretError {
    place: String,
    source_name: String,
    why: String,
}

/// What was found.
#[derive(Debug)]
pub enum Opened {
    Keys(Vec<Key>),
    /// No secret at all: nothing can be verified, so nothing is taken. The text says where one is missed.
    Closed(String),
}

pub(super) fn open(
    source: &str,
    secrets: &[Secret],
    verifier: &dyn Verifier,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Opened, SecretError> {
    let mut keys = Vec::new();
    for secret in secrets {
        let refused = |why: String| SecretError {
            place: secret.to_string(),
            source_name: source.to_owned(),
            why,
        };
        let text = match secret {
            Secret::Env(name) => variable(name),
            Secret::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(refused(error.to_string())),
            },
        };
        // Files end with a newline, which is no part of the secret.
        let text = text
            .as_deref()
            .map_or("", |text| text.trim_end_matches(['\r', '\n']));
        if !text.is_empty() {
            keys.push(verifier.key(text).map_err(|why| refused(why.to_owned()))?);
        }
    }
    if keys.is_empty() {
        let places: Vec<String> = secrets.iter().map(ToString::to_string).collect();
        return Ok(Opened::Closed(places.join(" or ")));
    }
    Ok(Opened::Keys(keys))
}

#[cfg(test)]
mod tests {
    use super::{open, Opened};
    use crate::admission::signatures::verifier;
    use contracts::webhooks::{Scheme, Secret};

    fn opened(secrets: &[&str], scheme: Scheme) -> Result<usize, String> {
        let secrets: Vec<Secret> = secrets
            .iter()
            .map(|text| (*text).to_owned().try_into().unwrap())
            .collect();
        let variable = |name: &str| match name {
            "GOOD" => Some("whsec_c2VjcmV0".to_owned()),
            "EMPTY" => Some(String::new()),
            "ODD" => Some("hunter2!".to_owned()),
            _ => None,
        };
        match open("acme", &secrets, verifier(scheme), variable) {
            Ok(Opened::Keys(keys)) => Ok(keys.len()),
            Ok(Opened::Closed(missed)) => Err(missed),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_secret_that_is_there_counts_and_none_closes_the_source() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "whsec_c2VjcmV0\n").unwrap();
        let file = format!("file:{}", file.display());
        assert_eq!(
            opened(&["env:GOOD", "env:ABSENT", &file], Scheme::Standard),
            Ok(2)
        );
        let missed = opened(
            &["env:ABSENT", "env:EMPTY", "file:/nowhere"],
            Scheme::Github,
        )
        .unwrap_err();
        assert_eq!(
            missed,
            "the environment variable ABSENT or the environment variable EMPTY or the file /nowhere"
        );
    }

    #[test]
    fn one_that_cannot_be_used_is_refused_without_being_shown() {
        let refused = opened(&["env:ODD"], Scheme::Standard).unwrap_err();
        assert!(refused.contains("ODD") && refused.contains("acme") && refused.contains("base64"));
        assert!(!refused.contains("hunter2"));
        assert!(opened(&["file:/"], Scheme::Github)
            .unwrap_err()
            .contains("the file /"));
    }
}
