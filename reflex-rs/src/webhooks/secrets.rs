//! Reads the secrets of webhook sources from the variables and files that `webhooks.yaml` names.

use contracts::webhooks::Secret;

use super::signatures::{Key, Verifier};

/// A secret that exists and cannot be used. The message never quotes it.
#[derive(Debug, thiserror::Error)]
#[error("{location}, named by the webhook source {source_name}, is refused: {reason}")]
pub struct SecretError {
    location: String,
    source_name: String,
    reason: String,
}

/// The secrets of one source.
#[derive(Debug)]
pub enum Secrets {
    Keys(Vec<Key>),
    /// No secret is set, so no delivery can be verified and none is accepted. The text names where one is expected.
    NotConfigured(String),
}

/// Reads all secrets of a source; `variable` looks up an environment variable.
pub(super) fn read(
    source: &str,
    secrets: &[Secret],
    verifier: &dyn Verifier,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Secrets, SecretError> {
    let mut keys = Vec::new();
    for secret in secrets {
        let refused = |reason: String| SecretError {
            location: secret.to_string(),
            source_name: source.to_owned(),
            reason,
        };
        let text = match secret {
            Secret::Env(name) => variable(name),
            Secret::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(refused(error.to_string())),
            },
        };
        // Files end with a newline, which is not part of the secret.
        let text = text
            .as_deref()
            .map_or("", |text| text.trim_end_matches(['\r', '\n']));
        if !text.is_empty() {
            keys.push(verifier.key(text).map_err(refused)?);
        }
    }
    if keys.is_empty() {
        let locations: Vec<String> = secrets.iter().map(ToString::to_string).collect();
        return Ok(Secrets::NotConfigured(locations.join(" or ")));
    }
    Ok(Secrets::Keys(keys))
}

#[cfg(test)]
mod tests {
    use super::super::signatures::verifier;
    use super::{read, Secrets};
    use contracts::webhooks::{Scheme, Secret, Tolerance};

    const STANDARD: Scheme = Scheme::Standard(Tolerance { seconds: 300 });

    fn read_all(secrets: &[&str], scheme: Scheme) -> Result<usize, String> {
        let secrets: Vec<Secret> = secrets
            .iter()
            .map(|text| (*text).to_owned().try_into().unwrap())
            .collect();
        let variable = |name: &str| match name {
            "GOOD" => Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
            "EMPTY" => Some(String::new()),
            "ODD" => Some("hunter2!".to_owned()),
            _ => None,
        };
        match read("acme", &secrets, &*verifier(scheme), variable) {
            Ok(Secrets::Keys(keys)) => Ok(keys.len()),
            Ok(Secrets::NotConfigured(expected)) => Err(expected),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_secret_counts_and_without_one_the_source_is_not_configured() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let file = format!("file:{}", file.display());
        assert_eq!(
            read_all(&["env:GOOD", "env:ABSENT", &file], STANDARD),
            Ok(2)
        );
        let expected = read_all(
            &["env:ABSENT", "env:EMPTY", "file:/nowhere"],
            Scheme::Github,
        )
        .unwrap_err();
        assert_eq!(
            expected,
            "the environment variable ABSENT or the environment variable EMPTY or the file /nowhere"
        );
    }

    #[test]
    fn an_unusable_secret_is_refused_and_not_quoted() {
        let refused = read_all(&["env:ODD"], STANDARD).unwrap_err();
        assert!(refused.contains("ODD") && refused.contains("acme") && refused.contains("base64"));
        assert!(!refused.contains("hunter2"));
        assert!(read_all(&["file:/"], Scheme::Github)
            .unwrap_err()
            .contains("the file /"));
    }
}
