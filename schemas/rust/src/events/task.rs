//! Events about whole tasks: submission, admission, what happened, result and status.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{
    words, Attempt, Bytes, CallbackUrl, Count, Detail, DigestMap, Int, Kind, List, Name, Object,
    Priority, Round, Run, Sha256, TaskId, Tenant, Text, Timestamp, MAX_SAFE,
};
use super::reading::{object, present, present_object};
use crate::error::ContractError;

words!(
    /// The source that a task came from.
    Source { Http = "http", Stream = "stream", Webhook = "webhook" }
);
words!(
    /// Why admission refused a readable submission.
    RefusalReason {
        Injection = "injection", TenantMismatch = "tenant_mismatch", Duplicate = "duplicate",
        NeedsModel = "needs_model", UnknownKind = "unknown_kind", InvalidInput = "invalid_input",
    }
);
words!(
    /// Terminal state of a run.
    State {
        Succeeded = "succeeded", Failed = "failed", Rejected = "rejected", Cancelled = "cancelled",
        Expired = "expired",
    }
);
words!(
    /// State of a task as a producer sees it.
    TaskState {
        Accepted = "accepted", Running = "running", Succeeded = "succeeded", Failed = "failed",
        Rejected = "rejected", Cancelled = "cancelled", Expired = "expired",
    }
);
words!(
    /// Why a task did not succeed.
    TaskReason {
        Judged = "judged", StepFailed = "step_failed", StepDead = "step_dead", Poison = "poison",
        PlanInvalid = "plan_invalid", Injection = "injection", TenantMismatch = "tenant_mismatch",
        Duplicate = "duplicate", NeedsModel = "needs_model", UnknownKind = "unknown_kind",
        InvalidInput = "invalid_input", Deadline = "deadline", Requested = "requested",
    }
);
words!(
    /// What happened to a task.
    EventName {
        Accepted = "accepted", Rejected = "rejected", Planned = "planned", StepSent = "step_sent",
        StepSucceeded = "step_succeeded", StepFailed = "step_failed", StepRetrying = "step_retrying",
        StepDead = "step_dead", StepCancelled = "step_cancelled", RepairOpened = "repair_opened",
        Finished = "finished",
    }
);
words!(
    /// How an answer was made.
    Mode { Deterministic = "deterministic", Model = "model" }
);
words!(
    /// State of a step in a result.
    StepState {
        Blocked = "blocked", Sent = "sent", Succeeded = "succeeded", Failed = "failed", Dead = "dead",
        Cancelled = "cancelled", Skipped = "skipped",
    }
);

/// What a producer asks for (`task.submission.v1`). `I` is what is kept of the input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(serialize = "I: Serialize", deserialize = "I: Deserialize<'de>"))]
pub struct TaskSubmission<I = Object> {
    pub goal: Text<1, 10_000>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub kind: Option<Kind>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub input: Option<I>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub priority: Option<Priority>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub deadline_s: Option<Int<1, 604_800>>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub not_before: Option<Timestamp>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub metadata: Option<DigestMap<Text<0, 500>>>,
    /// Never redacted: a URL that was changed would lead elsewhere.
    #[serde(
        default,
        deserialize_with = "present_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub callback: Option<Callback>,
}

/// Who is notified when a task has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    pub url: CallbackUrl,
}

/// A submission that passed admission, already redacted (`task.submitted.v1`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(serialize = "S: Serialize", deserialize = "S: DeserializeOwned"))]
pub struct TaskSubmitted<S = TaskSubmission> {
    pub task: TaskId,
    pub tenant: Tenant,
    pub source: Source,
    pub received_at: Timestamp,
    pub idempotency_key: Text<1, 255>,
    pub fingerprint: Sha256,
    pub redactions: DigestMap<Count>,
    /// Must be the last field; see `write_with`.
    #[serde(deserialize_with = "object")]
    pub submission: S,
}

impl TaskSubmitted<()> {
    /// The event as JSON text; `submission` is that field's value as JSON text.
    pub fn write_with(&self, submission: &[u8]) -> Result<Vec<u8>, ContractError> {
        let invalid = |rule: String| ContractError::schema("submission", rule);
        let mut text = Vec::with_capacity(submission.len() + 512);
        serde_json::to_writer(&mut text, self).map_err(|error| invalid(error.to_string()))?;
        let Some(start) = text.strip_suffix(b"null}").map(<[u8]>::len) else {
            return Err(invalid("must be the last field".to_owned()));
        };
        text.truncate(start);
        text.extend_from_slice(submission);
        text.push(b'}');
        Ok(text)
    }
}

/// A readable submission that admission refused (`task.rejected.v1`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRejected {
    pub task: TaskId,
    pub tenant: Tenant,
    pub source: Source,
    pub received_at: Timestamp,
    pub idempotency_key: Text<1, 255>,
    pub fingerprint: Sha256,
    pub redactions: DigestMap<Count>,
    #[serde(deserialize_with = "object")]
    pub submission: TaskSubmission,
    pub reason: RefusalReason,
    pub detail: Text<0, 2000>,
}

/// One thing that happened to a task (`task.event.v1`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskEvent {
    pub task: TaskId,
    pub run: Run,
    pub seq: Attempt,
    pub tenant: Tenant,
    pub at: Timestamp,
    pub event: EventName,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub step: Option<Name>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub round: Option<Round>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub attempt: Option<Attempt>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub arm: Option<Name>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub state: Option<State>,
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
}

/// One step in a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSummary {
    pub step: Name,
    pub arm: Name,
    pub round: Round,
    pub attempt: Count,
    pub state: StepState,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub duration_ms: Option<Bytes>,
}

/// What came of one run of a task (`task.result.v1`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskResult {
    pub task: TaskId,
    pub run: Run,
    pub tenant: Tenant,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub kind: Option<Kind>,
    pub state: State,
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
    /// Any JSON value, also null; never absent.
    pub answer: Value,
    /// Size of an answer that is too large for a message; `answer` is null then.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub answer_bytes: Option<Int<1, MAX_SAFE>>,
    pub steps: List<StepSummary, 2000>,
    pub mode: Mode,
    pub redactions: DigestMap<Count>,
    pub finished_at: Timestamp,
}

/// Somebody wants a task to end now (`task.cancel.v1`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCancel {
    pub task: TaskId,
    pub tenant: Tenant,
    pub requested_at: Timestamp,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub detail: Option<Text<0, 2000>>,
}

/// Somebody wants a task that did not succeed to run again (`task.redrive.v1`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRedrive {
    pub task: TaskId,
    pub tenant: Tenant,
    /// The run that ended; it is below the maximum, so that another run is possible.
    pub run: Int<1, 2_147_483_646>,
    pub requested_at: Timestamp,
}
