//! Reads the message of a step, strictly.

use bus::Entry;
use contracts::events::{self, DeadReason, Event, StepRequested};
use contracts::ids::message_id;
use contracts::topology::Topic;
use contracts::Reason;

/// Longest part of a field that is shown.
const MAX_SHOWN: usize = 300;

/// A message that is not a step for this arm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejected {
    pub reason: DeadReason,
    pub message: String,
}

impl Rejected {
    fn misrouted(message: String) -> Self {
        Self {
            reason: DeadReason::Misrouted,
            message,
        }
    }
}

/// The step that an entry asks for.
pub fn parse_message(entry: &Entry, topic: &Topic) -> Result<StepRequested, Rejected> {
    if entry.field("type") != StepRequested::TYPE.as_bytes() {
        let (wanted, stream) = (StepRequested::TYPE, &entry.stream);
        return Err(Rejected::misrouted(format!(
            "field type must be {wanted} on {stream}"
        )));
    }
    let step: StepRequested = events::read(entry.field("body")).map_err(|error| Rejected {
        reason: match error.reason {
            Reason::Malformed => DeadReason::Malformed,
            Reason::Schema => DeadReason::Schema,
        },
        message: error.to_string(),
    })?;
    if step.arm.as_str() != topic.group {
        return Err(Rejected::misrouted(format!(
            "the step is for arm {}, not for {}",
            step.arm, topic.group
        )));
    }
    let id = id_of(&step);
    if entry.field("id") != id.as_bytes() {
        return Err(Rejected::misrouted(format!(
            "field id is not the body's {id}"
        )));
    }
    Ok(step)
}

/// The id of a step's message.
#[must_use]
pub fn id_of(step: &StepRequested) -> String {
    message_id(
        &step.task,
        step.run.get(),
        &step.step,
        step.round.get(),
        step.attempt.get(),
    )
}

/// A field that anyone may have written, made fit for JSON and a terminal.
#[must_use]
pub fn printable(field: &[u8]) -> String {
    let shown = field.iter().take(MAX_SHOWN);
    shown
        .map(|byte| match byte {
            0x20..0x7f => char::from(*byte),
            _ => '?',
        })
        .collect()
}
