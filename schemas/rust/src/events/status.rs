//! The status of a task, as a producer reads it.

use serde::{Deserialize, Serialize};

use super::fields::{
    Bytes, Detail, DigestMap, Int, Kind, List, Name, Run, TaskId, Tenant, Text, Timestamp, MAX_SAFE,
};
use super::reading::{present, present_object};
use super::task::{TaskReason, TaskResult, TaskState, TaskSubmission};

/// Where the result of a task can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultAddress {
    /// Path of `octollm api` that answers with the result.
    pub api_path: Text<0, 200>,
    /// What to do to get the result.
    pub detail: Detail,
}

/// A step on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenStep {
    pub step: Name,
    pub arm: Name,
    pub sent_at: Timestamp,
}

/// A step that nobody can take now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitingStep {
    pub step: Name,
    pub arm: Name,
    /// Seconds.
    pub for_s: Bytes,
}

/// What `GET /v1/tasks/{id}` answers (`task.status.v1`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskStatus {
    pub task: TaskId,
    pub tenant: Tenant,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub kind: Option<Kind>,
    pub state: TaskState,
    pub run: Run,
    pub version: Int<0, MAX_SAFE>,
    pub stored: bool,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub reason: Option<TaskReason>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub detail: Option<Detail>,
    pub created_at: Timestamp,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub updated_at: Option<Timestamp>,
    /// Steps that have been sent and have not ended.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub open: Option<List<OpenStep, 200>>,
    /// Those of them whose arm has no living worker; never stored, worked out for each answer.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub waiting: Option<List<WaitingStep, 200>>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub metadata: Option<DigestMap<Text<0, 500>>>,
    /// Never stored; an answer of the API has it where the request asks for it.
    #[serde(
        default,
        deserialize_with = "present_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub submission: Option<TaskSubmission>,
    #[serde(
        default,
        deserialize_with = "present_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub result: Option<TaskResult>,
    /// Size of a result that is too large to be kept in Redis; the API reads it from Postgres.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub result_bytes: Option<Int<1, MAX_SAFE>>,
    /// Where to read a result that is left out of this answer; never stored.
    #[serde(
        default,
        deserialize_with = "present_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub result_at: Option<ResultAddress>,
}
