//! What admission reads and what it returns: plain data without rules.

use bytes::Bytes;
use contracts::events::{Object, Priority, RefusalReason, Source, TaskId, Tenant};
use contracts::ContractError;

use crate::kinds::Violation;

/// One submission as it was received.
#[derive(Debug, Clone)]
pub struct Submission {
    pub source: Source,
    /// A `task.submission.v1` as JSON text.
    pub body: Bytes,
    /// What the sender wrote, if `body` was made from it, as for webhooks. It decides then, instead of `body`, what is a repeat
    /// and what is another task under the same idempotency key.
    pub received: Option<Bytes>,
    /// The producer's key. A task without one is never a duplicate.
    pub idempotency_key: Option<String>,
    /// W3C trace context, always valid.
    pub traceparent: String,
    /// Whether an ingest entry names another tenant than its stream.
    pub tenant_mismatch: bool,
}

/// The time and the random bits of one admission, passed in so that admission stays pure.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Milliseconds since 1970, by the store's clock.
    pub now_ms: u64,
    /// Becomes the random part of the task id.
    pub random: [u8; 10],
}

impl Stamp {
    /// Adds random bits to a time.
    pub fn at(now_ms: u64) -> Result<Self, getrandom::Error> {
        Ok(Self {
            now_ms,
            random: contracts::ids::random()?,
        })
    }
}

/// A task that is ready to be stored.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub task: TaskId,
    pub lane: String,
    pub tenant: Tenant,
    pub kind: Option<String>,
    pub priority: Priority,
    /// The producer's idempotency key, or the task id.
    pub idempotency_key: String,
    /// See `fingerprint`: equal for the same task, however its JSON is written.
    pub fingerprint: String,
    pub message_type: &'static str,
    pub traceparent: String,
    /// The message of type `message_type` as JSON text.
    pub body: Vec<u8>,
    pub created_at: String,
    /// Set when the submission is refused; `body` is then a `task.rejected.v1`.
    pub refusal: Option<Refusal>,
}

impl Admitted {
    /// Whether the producer gave an idempotency key, so that there can be a repeat.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.idempotency_key != self.task.as_str()
    }

    /// Returns the same task under another id of the same lane: the one that it was first stored under.
    pub fn with_task(&self, task: &TaskId) -> Result<Self, ContractError> {
        let invalid = |error: serde_json::Error| ContractError::schema("task", error.to_string());
        let mut message: Object = serde_json::from_slice(&self.body).map_err(invalid)?;
        message.insert("task".to_owned(), task.as_str().into());
        Ok(Self {
            task: task.clone(),
            body: serde_json::to_vec(&message).map_err(invalid)?,
            ..self.clone()
        })
    }
}

/// Why a valid submission is refused: by the policy, or because it cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RefusalReason,
    pub detail: String,
    /// The rules that the kind and the input break; empty if the policy refuses the submission.
    pub violations: Vec<Violation>,
}

/// Checks an idempotency key: 1 to 255 visible ASCII characters. Returns it as text, or `None` if it breaks the rule.
#[must_use]
pub fn idempotency_key(raw: &[u8]) -> Option<&str> {
    let valid = (1..=255).contains(&raw.len()) && raw.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(raw).ok().filter(|_| valid)
}
