//! The one error of reading an event: what kind it is, where it was, what is wrong.

use std::fmt;

/// Why bytes were refused; also the reason of the dead letter they become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not strict JSON at all.
    Malformed,
    /// JSON, but not what the event's schema says.
    Schema,
}

/// Bytes that are not the event they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractError {
    pub reason: Reason,
    /// Path of the field, like `input.files`; empty for the whole text.
    pub field: String,
    /// What is wrong, for people. Never quotes the value: it may be personal data.
    pub message: String,
}

impl ContractError {
    pub fn malformed(message: impl Into<String>) -> Self {
        Self {
            reason: Reason::Malformed,
            field: String::new(),
            message: message.into(),
        }
    }

    pub fn schema(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: Reason::Schema,
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for ContractError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(out, "{}", self.message)
        } else {
            write!(out, "{}: {}", self.field, self.message)
        }
    }
}

impl std::error::Error for ContractError {}
