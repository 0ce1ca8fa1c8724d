//! The twelve events of `schemas/events`, one file per subject, and the one way to read and write them.
//!
//! JSON Schema is the source; these types are written by hand and judged by `schemas/vectors`. Optional fields are
//! absent, never null.

pub mod dead_letter;
pub mod fields;
pub(crate) mod reading;
pub mod status;
pub mod step;
pub mod task;

pub use dead_letter::{DeadDrop, DeadLetter, DeadReason, Stage};
pub use fields::{
    AnyObject, Code, Count, Detail, DigestMap, Int, Kind, List, Name, Object, Priority, Sha256,
    TaskId, Tenant, Text, Timestamp,
};
pub use reading::from_object;
pub use status::{OpenStep, ResultAddress, TaskStatus, WaitingStep};
pub use step::{StepDone, StepError, StepOutput, StepRequested};
pub use task::{
    EventName, Mode, RefusalReason, Source, State, StepState, StepSummary, TaskCancel, TaskEvent,
    TaskReason, TaskRedrive, TaskRejected, TaskResult, TaskState, TaskSubmission, TaskSubmitted,
};

use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::error::ContractError;
use crate::strict_json;

/// A message type with its name on the wire.
pub trait Event: Serialize + DeserializeOwned {
    /// The field `type` of an entry, like `step.requested.v1`.
    const TYPE: &'static str;
}

macro_rules! events {
    ($($name:ty => $wire:literal),* $(,)?) => { $(impl Event for $name { const TYPE: &'static str = $wire; })* };
}

events! {
    TaskSubmission => "task.submission.v1",
    TaskSubmitted => "task.submitted.v1",
    TaskRejected => "task.rejected.v1",
    StepRequested => "step.requested.v1",
    StepDone => "step.done.v1",
    TaskResult => "task.result.v1",
    TaskEvent => "task.event.v1",
    DeadLetter => "dead.letter.v1",
    TaskStatus => "task.status.v1",
    TaskCancel => "task.cancel.v1",
    TaskRedrive => "task.redrive.v1",
    DeadDrop => "dead.drop.v1",
}

/// Every event's name on the wire.
pub const TYPES: [&str; 12] = [
    TaskSubmission::TYPE,
    TaskSubmitted::TYPE,
    TaskRejected::TYPE,
    StepRequested::TYPE,
    StepDone::TYPE,
    TaskResult::TYPE,
    TaskEvent::TYPE,
    DeadLetter::TYPE,
    TaskStatus::TYPE,
    TaskCancel::TYPE,
    TaskRedrive::TYPE,
    DeadDrop::TYPE,
];

/// Reads one event: strict JSON first, then its schema.
pub fn read<T: Event>(data: &[u8]) -> Result<T, ContractError> {
    read_within(data, strict_json::MAX_DEPTH)
}

/// Like `read`, with another bound on the nesting.
pub fn read_within<T: Event>(data: &[u8], max_depth: usize) -> Result<T, ContractError> {
    strict_json::check_depth(data, max_depth)?;
    read_checked(data)
}

/// Reads an event, or what is kept of it, from text that is strict JSON for certain.
pub fn read_checked<T: DeserializeOwned>(data: &[u8]) -> Result<T, ContractError> {
    // serde would take an array for a struct; the schemas say object.
    if data.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ContractError::schema("", "must be an object"));
    }
    if let Ok(event) = serde_json::from_slice(data) {
        return Ok(event);
    }
    // Only now is the path followed, which costs more than all the rest.
    let mut reader = serde_json::Deserializer::from_slice(data);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        reading::fault(&path, &error.into_inner().to_string())
    })
}

/// The event as JSON text.
pub fn write<T: Event>(event: &T) -> Result<Vec<u8>, ContractError> {
    serde_json::to_vec(event).map_err(|error| ContractError::schema("", error.to_string()))
}
