//! Events about steps: the request to an arm and how one attempt ended.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::dead_letter::DeadReason;
use super::fields::{
    Attempt, Bytes, Code, Count, DigestMap, Int, List, Name, Object, Priority, Round, Run, Sha256,
    TaskId, Tenant, Text, Timestamp,
};
use super::reading::{from_object, object, present, present_object};
use crate::error::ContractError;

/// One step for one arm (`step.requested.v1`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRequested {
    pub task: TaskId,
    pub run: Run,
    pub step: Name,
    pub round: Round,
    pub attempt: Attempt,
    pub tenant: Tenant,
    pub arm: Name,
    pub priority: Priority,
    /// Failures so far; retry policy counts these, `attempt` is a fence.
    pub failures: Count,
    /// How often it was put off because it needs a person.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub parked: Option<Attempt>,
    pub input: Object,
    pub timeout_s: Int<1, 86_400>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub deadline_at: Option<Timestamp>,
    /// Of a step that was handed off directly: the outputs its input was made from before they were committed.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub builds_on: Option<DigestMap<Sha256>>,
    #[serde(
        default,
        deserialize_with = "present_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub continuation: Option<Continuation>,
}

/// The remaining steps of a linear chain. The worker that finishes this step publishes the first of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continuation {
    /// With which attempt each of the steps begins.
    pub attempt: Attempt,
    pub steps: List<ContinuationStep, 32>,
    /// What references see in addition to the outputs to come.
    pub seen: Object,
    /// Of the outputs in `seen` that are not committed yet.
    pub digests: DigestMap<Sha256>,
}

/// A step that may follow without the orchestrator; its references are unresolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContinuationStep {
    pub step: Name,
    pub arm: Name,
    pub timeout_s: Int<1, 86_400>,
    pub input: Object,
}

/// What went wrong in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepError {
    pub code: Code,
    pub message: Text<1, 2000>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InlineOutput {
    pub value: Object,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOutput {
    pub sha256: Sha256,
    pub bytes: Bytes,
}

/// Where a step's output is: in the message, or in Postgres under (tenant, sha256).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "at")]
pub enum StepOutput {
    #[serde(rename = "inline")]
    Inline(InlineOutput),
    #[serde(rename = "postgres")]
    Stored(StoredOutput),
}

impl<'de> Deserialize<'de> for StepOutput {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (tag, rest) = tagged(Object::deserialize(from)?, "at").map_err(D::Error::custom)?;
        match tag.as_str() {
            "inline" => from_object(rest).map(Self::Inline),
            "postgres" => from_object(rest).map(Self::Stored),
            _ => Err(ContractError::schema("at", "must be inline or postgres")),
        }
        .map_err(D::Error::custom)
    }
}

/// The step that was sent in the same script call, so that the orchestrator does not send it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chained {
    pub step: Name,
    pub attempt: Attempt,
}

macro_rules! done {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            pub task: TaskId,
            pub run: Run,
            pub step: Name,
            pub round: Round,
            pub attempt: Attempt,
            pub tenant: Tenant,
            pub arm: Name,
            pub worker: Text<1, 200>,
            pub delivery: Attempt,
            pub finished_at: Timestamp,
            pub duration_ms: Bytes,
            $($(#[$attribute])* pub $field: $kind,)*
        }
    };
}

done!(
    /// The arm gave an output; a judge's verdict "fail" is one too.
    Succeeded {
        output: StepOutput,
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        builds_on: Option<DigestMap<Sha256>>,
        #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
        chained: Option<Chained>,
    }
);
done!(
    /// A permanent failure.
    Failed {
        #[serde(deserialize_with = "object")]
        error: StepError,
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        builds_on: Option<DigestMap<Sha256>>,
    }
);
done!(
    /// A transient failure; the next attempt is on the schedule.
    Retrying {
        #[serde(deserialize_with = "object")]
        error: StepError,
        next_attempt: Attempt,
        failures: Count,
        delay_ms: Bytes,
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        builds_on: Option<DigestMap<Sha256>>,
    }
);
done!(
    /// The message was given up on.
    Dead { reason: DeadReason, #[serde(deserialize_with = "object")] error: StepError }
);
done!(
    /// The task was cancelled before the step ended.
    Cancelled {}
);

/// How one attempt at a step ended (`step.done.v1`).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum StepDone {
    Succeeded(Succeeded),
    Failed(Failed),
    Retrying(Retrying),
    Dead(Dead),
    Cancelled(Cancelled),
}

impl<'de> Deserialize<'de> for StepDone {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (tag, rest) =
            tagged(Object::deserialize(from)?, "outcome").map_err(D::Error::custom)?;
        match tag.as_str() {
            "succeeded" => from_object(rest).map(Self::Succeeded),
            "failed" => from_object(rest).map(Self::Failed),
            "retrying" => from_object(rest).map(Self::Retrying),
            "dead" => from_object(rest).map(Self::Dead),
            "cancelled" => from_object(rest).map(Self::Cancelled),
            _ => Err(ContractError::schema(
                "outcome",
                "must be one of: succeeded failed retrying dead cancelled",
            )),
        }
        .map_err(D::Error::custom)
    }
}

/// Takes the tag out of a tagged object. Written out because serde's own tagging also takes arrays and loses the path.
fn tagged(mut object: Object, tag: &str) -> Result<(String, Object), ContractError> {
    match object.shift_remove(tag) {
        Some(Value::String(text)) => Ok((text, object)),
        Some(_) => Err(ContractError::schema(tag, "must be a string")),
        None => Err(ContractError::schema(tag, "missing")),
    }
}
