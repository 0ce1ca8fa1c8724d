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
    /// Redis refuses the command or the connection (wrong type of key, missing permission, wrong password) or gave an
    /// answer that this program does not know. Trying again does not help.
    #[error("Redis refuses the command: {0}")]
    Refused(#[source] Arc<RedisError>),
}

/// A refusal of something that the process cannot work without. It ends the process, which can only report it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("Redis refuses to {what}: {cause}")]
pub struct Refusal {
    /// What Redis was asked to do, as a verb phrase.
    what: String,
    #[source]
    cause: Arc<RedisError>,
}

/// Error codes that are about the server's state, not about the command. They pass with time.
/// `workers/octollm/protocol/backoff.py` has the same list; `tests/contract/test_redis_errors.py` compares them.
const UNAVAILABLE: [&str; 14] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "EXECABORT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOGROUP",
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

    /// An error before a command could be sent, such as a refused connection or a wrong password.
    #[must_use]
    pub fn not_sent(error: RedisError) -> Self {
        match Self::from(error) {
            Self::Unknown(cause) => Self::Unavailable {
                reason: cause.to_string(),
                cause: Some(cause),
            },
            other => other,
        }
    }

    fn not_executed(error: RedisError) -> Self {
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

    /// Whether a consumer group does not exist. Its readers create it again.
    #[must_use]
    pub fn is_missing_group(&self) -> bool {
        self.code() == Some("NOGROUP")
    }

    /// Whether a key holds data of another type than the command needs.
    #[must_use]
    pub fn is_wrong_type(&self) -> bool {
        self.code() == Some("WRONGTYPE")
    }

    /// Whether the server has become a replica, or was one.
    pub(crate) fn is_read_only(&self) -> bool {
        self.code() == Some("READONLY")
    }

    /// The code of the server's answer; `None` without an answer.
    fn code(&self) -> Option<&str> {
        match self {
            Self::Unavailable { cause, .. } => cause.as_ref()?.code(),
            Self::Unknown(cause) | Self::OutOfMemory(cause) | Self::Refused(cause) => cause.code(),
        }
    }

    /// Fail where the error is a refusal, so that a loop does not repeat for ever what Redis will never do.
    ///
    /// `what`: what Redis was asked to do, as a verb phrase for the message.
    pub fn check_transient(&self, what: impl Into<String>) -> Result<(), Refusal> {
        match self {
            Self::Refused(cause) => Err(Refusal {
                what: what.into(),
                cause: Arc::clone(cause),
            }),
            _ => Ok(()),
        }
    }
}

/// Whether the same command will be refused again. Looks only at the code and kind of the error, never at its text.
pub(crate) fn is_refused(error: &RedisError) -> bool {
    match error.code() {
        Some(code) => code != "OOM" && !UNAVAILABLE.contains(&code),
        None => matches!(
            error.kind(),
            ErrorKind::AuthenticationFailed
                | ErrorKind::ClientError
                | ErrorKind::InvalidClientConfig
                | ErrorKind::TypeError
        ),
    }
}

/// Classifies the error of a command that was sent.
impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        if is_refused(&error) {
            return Self::Refused(Arc::new(error));
        }
        match error.code() {
            Some("OOM") => Self::OutOfMemory(Arc::new(error)),
            Some(_) => Self::not_executed(error),
            None => Self::Unknown(Arc::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, ErrorKind, RedisError, StoreError};
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
            "NOGROUP No such key 's' or consumer group 'g'",
        ] {
            let error = server_error(line);
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        }
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOPERM this user has no permissions",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "ERR a field quotes the words BUSY and OOM and LOADING ",
        ] {
            let error = server_error(line);
            assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
            assert!(!error.is_transient());
            let refusal = error.check_transient("read a stream").unwrap_err();
            let text = refusal.to_string();
            assert!(
                text.starts_with("Redis refuses to read a stream: "),
                "{text}"
            );
        }
        let error = server_error("OOM command not allowed when used memory > 'maxmemory'.");
        assert!(matches!(error, StoreError::OutOfMemory(_)), "{error:?}");
        assert!(error.check_transient("write").is_ok());
    }

    #[test]
    fn a_login_that_is_refused_does_not_pass() {
        let not_sent = |line: &str| match server_error(line) {
            StoreError::Refused(cause) => StoreError::not_sent(Arc::into_inner(cause).unwrap()),
            other => other,
        };
        for line in [
            "ERR DB index is out of range",
            "DENIED Redis is running in protected mode",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
        ] {
            assert!(!not_sent(line).is_transient(), "{line}");
        }
        assert!(not_sent("LOADING Redis is loading the dataset in memory").is_transient());
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
