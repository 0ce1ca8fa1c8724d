//! What can go wrong with Redis, as far as it makes a difference to us.

use redis::{ErrorKind, RedisError};

/// Why Redis did not do what was asked. Only `Broken` needs a person who looks at the data.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be reached, restarts, or may not write just now: nothing is known to be stored.
    #[error("Redis cannot be used now: {0}")]
    Away(String),
    /// Its memory is at the limit: it takes in nothing new.
    #[error("Redis is full: {0}")]
    Full(RedisError),
    /// It answers, but refuses what we ask: a key of another type, a missing permission, an answer we do not know.
    #[error("Redis refuses the request: {0}")]
    Broken(RedisError),
}

/// Refusals that end by themselves or with the outage; connection errors have no code.
const PASSING: [&str; 13] = [
    "LOADING",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MASTERDOWN",
    "MOVED",
    "ASK",
    "UNBLOCKED",
    "NOSCRIPT",
    "EXECABORT",
    "BUSY",
];

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("OOM") => Self::Full(error),
            Some(code) if PASSING.contains(&code) => Self::Away(error.to_string()),
            Some(_) => Self::Broken(error),
            None => match error.kind() {
                // Ours or the data's, not the connection's.
                ErrorKind::TypeError | ErrorKind::ClientError => Self::Broken(error),
                _ => Self::Away(error.to_string()),
            },
        }
    }
}

/// Whether the stream or its group is missing.
#[must_use]
pub fn is_group_missing(error: &RedisError) -> bool {
    error.code() == Some("NOGROUP")
}
