//! Where the secret of a webhook source is. Never the secret itself.

use std::path::PathBuf;

use serde::Deserialize;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Secret {
    Env(String),
    File(PathBuf),
}

impl TryFrom<String> for Secret {
    type Error = String;

    // Never quotes the text: it may be the secret itself, written here by mistake.
    fn try_from(text: String) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("env:") {
            let plain = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !plain {
                return Err("env: must be followed by the name of a variable".to_owned());
            }
            // Such variables are settings, and an unknown setting is refused.
            if name.to_ascii_uppercase().starts_with("OCTOLLM_") {
                return Err(
                    "must not name a variable that starts with OCTOLLM_; call it otherwise"
                        .to_owned(),
                );
            }
            return Ok(Self::Env(name.to_owned()));
        }
        match text.strip_prefix("file:") {
            Some(path) if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            _ => Err(
                "must be env:NAME or file:/absolute/path; the secret itself has no place here"
                    .to_owned(),
            ),
        }
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(out, "the environment variable {name}"),
            Self::File(path) => write!(out, "the file {}", path.display()),
        }
    }
}
