//! What can go wrong with Redis, as far as callers treat it differently.

use std::sync::Arc;

use redis::{ErrorKind, RedisError};

/// Why Redis did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Redis cannot be reached, is starting, or does not write at the moment. The command was not run.
    #[error("Redis is unavailable: {reason}")]
    Unavailable {
        reason: String,
        #[source]
        cause: Option<Arc<RedisError>>,
    },
    /// The command was sent, but no answer arrived. Whether Redis ran it is unknown.
    #[error("Redis did not answer, so it is unknown whether the command was run: {0}")]
    Unknown(#[source] Arc<RedisError>),
    /// Redis has reached its memory limit and accepts no new data. The command was not run.
    #[error("Redis is out of memory: {0}")]
    OutOfMemory(#[source] Arc<RedisError>),
    /// Redis refuses the command (wrong type of key, missing permission) or gave an answer that this program does not
    /// know. Trying again does not help.
    #[error("Redis refuses the command: {0}")]
    Refused(#[source] Arc<RedisError>),
}

/// Error codes that are about the server's state, not about the command. They pass with time.
const UNAVAILABLE: [&str; 14] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "EXECABORT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOREPLICAS",
    "NOSCRIPT",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
];

impl StoreError {
    /// Redis cannot be used, for a reason that is not an error of the client library.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
            cause: None,
        }
    }

    /// Redis gave an answer that this program does not understand; `what` says which.
    #[must_use]
    pub fn unexpected_answer(what: &'static str) -> Self {
        Self::Refused(Arc::new(RedisError::from((ErrorKind::TypeError, what))))
    }

    /// An error before a command could be sent, such as a refused connection.
    #[must_use]
    pub fn not_sent(error: RedisError) -> Self {
        Self::Unavailable {
            reason: error.to_string(),
            cause: Some(Arc::new(error)),
        }
    }

    /// Whether the same command can succeed later without anyone changing it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Classifies the error of a command that was sent. Looks only at the code and kind of the error, never at its text.
impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("OOM") => Self::OutOfMemory(Arc::new(error)),
            Some(code) if UNAVAILABLE.contains(&code) => Self::not_sent(error),
            Some(_) => Self::Refused(Arc::new(error)),
            None => match error.kind() {
                ErrorKind::TypeError | ErrorKind::ClientError | ErrorKind::InvalidClientConfig => {
                    Self::Refused(Arc::new(error))
                }
                ErrorKind::AuthenticationFailed => Self::not_sent(error),
                _ => Self::Unknown(Arc::new(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, RedisError, StoreError};
    use std::io;

    fn server_error(line: &str) -> StoreError {
        let parsed = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        match parsed.and_then(redis::Value::extract_error) {
            Err(error) => error.into(),
            Ok(value) => unreachable!("{value:?} is not an error"),
        }
    }

    #[test]
    fn the_code_decides_and_the_text_does_not() {
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "BUSY Redis is busy running a script.",
            "NOSCRIPT No matching script.",
            "MISCONF Redis is configured to save RDB snapshots",
        ] {
            let error = server_error(line);
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        }
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOPERM this user has no permissions",
            "ERR a field quotes the words BUSY and OOM and LOADING ",
        ] {
            let error = server_error(line);
            assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
            assert!(!error.is_transient());
        }
        let error = server_error("OOM command not allowed when used memory > 'maxmemory'.");
        assert!(matches!(error, StoreError::OutOfMemory(_)), "{error:?}");
    }

    #[test]
    fn a_broken_connection_leaves_the_result_unknown() {
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe] {
            let error = StoreError::from(RedisError::from(io::Error::from(kind)));
            assert!(matches!(error, StoreError::Unknown(_)), "{error:?}");
            assert!(error.is_transient());
        }
        let error = StoreError::not_sent(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        let error = StoreError::from(RedisError::from((ErrorKind::TypeError, "not a number")));
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    }
}
