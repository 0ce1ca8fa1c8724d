//! Admission: decides what becomes of one submission. Pure: the clock and the random bits are passed in.
//!
//! Layers, from the bottom: `submission` (data) → `rules` (compiled patterns) → `redact` (applies them to a submission) →
//! this file (the decision) and `dead_letter` (the record of an ingest entry that never became a task).

mod dead_letter;
mod redact;
mod rules;
mod submission;

pub use dead_letter::{DeadLetterContext, DeadLetterMessage};
pub use rules::{Redactions, Rules, RulesError};
pub use submission::{idempotency_key, Admitted, Refusal, Stamp, Submission};

use contracts::events::{
    read_within, write, DigestMap, Event, Priority, RefusalReason, Sha256, TaskRejected,
    TaskSubmission, TaskSubmitted, Text, Timestamp,
};
use contracts::topology::Topology;
use contracts::{ids, strict_json, ContractError};

use crate::caller::Caller;

/// How far ahead a task may be scheduled.
const MAX_AHEAD_MS: u64 = 30 * 86_400_000;

/// Nesting of a submission. Every message that carries a part of it adds levels of its own, and the same bound as for a
/// step's output leaves room for them.
const MAX_DEPTH: usize = strict_json::MAX_DEPTH - 8;

/// Length of a key that still fits into a message after `refused`.
const MAX_SHOWN_KEY: usize = 240;

/// Decides on one submission.
///
/// Returns the task to store; its `refusal` is set if the policy refuses it. Fails if the body is not a valid
/// `task.submission.v1`.
pub fn admit(
    caller: &Caller,
    submission: &Submission,
    stamp: Stamp,
    rules: &Rules,
    topology: &Topology,
) -> Result<Admitted, ContractError> {
    let tenant = &caller.tenant;
    let mut request: TaskSubmission = read_within(&submission.body, MAX_DEPTH)?;
    check_not_before(request.not_before.as_ref(), stamp.now_ms)?;
    let refusal = refusal(&request, submission.tenant_mismatch, rules);
    let redactions = redact::submission(&mut request, rules)?;
    let given_key = submission.idempotency_key.as_deref();
    let ulid = ids::ulid(stamp.now_ms, stamp.random);
    let lane = topology
        .lane_for(tenant.as_str(), given_key.unwrap_or(&ulid))
        .to_owned();
    let task = ids::task_id(&lane, &ulid)?;
    let created_at = ids::timestamp(stamp.now_ms);
    let fingerprint = ids::sha256_hex(&submission.received);
    let idempotency_key = match (given_key, &refusal) {
        (Some(key), Some(_)) => refused_key(key),
        (given, _) => given.unwrap_or(task.as_str()).to_owned(),
    };
    let kind = request.kind.as_ref().map(ToString::to_string);
    let priority = request.priority.unwrap_or(Priority::Normal);
    let message = TaskSubmitted {
        task: task.clone(),
        tenant: tenant.clone(),
        source: submission.source,
        received_at: Timestamp::try_from(created_at.clone())?,
        idempotency_key: Text::cut(&public_key(&idempotency_key, rules))?,
        fingerprint: Sha256::try_from(fingerprint.clone())?,
        redactions: DigestMap::try_from(redactions.counts())?,
        submission: request,
    };
    let (message_type, body) = match &refusal {
        None => (TaskSubmitted::TYPE, write(&message)?),
        Some(refusal) => (TaskRejected::TYPE, write(&rejected(message, refusal)?)?),
    };
    Ok(Admitted {
        task,
        lane,
        tenant: tenant.clone(),
        kind,
        priority,
        idempotency_key,
        fingerprint,
        message_type,
        traceparent: submission.traceparent.clone(),
        body,
        created_at,
        refusal,
    })
}

/// Refuses a date that is not in the calendar as well as one that is too far ahead.
fn check_not_before(not_before: Option<&Timestamp>, now_ms: u64) -> Result<(), ContractError> {
    let Some(text) = not_before.map(Timestamp::as_str) else {
        return Ok(());
    };
    let rule = match ids::timestamp_ms(text) {
        None => "must be a time that exists, from 1970 on",
        Some(ms) if ms > now_ms.saturating_add(MAX_AHEAD_MS) => "must be at most 30 days ahead",
        Some(_) => return Ok(()),
    };
    Err(ContractError::schema("not_before", rule))
}

fn refusal(request: &TaskSubmission, tenant_mismatch: bool, rules: &Rules) -> Option<Refusal> {
    if tenant_mismatch {
        return Some(Refusal {
            reason: RefusalReason::TenantMismatch,
            detail: "names another tenant than its stream; write to that tenant's stream"
                .to_owned(),
        });
    }
    let (field, rule) = redact::find_injection(request, rules)?;
    Some(Refusal {
        reason: RefusalReason::Injection,
        detail: format!("{field} looks like a prompt injection (rule {rule})"),
    })
}

/// The key of a refused submission. The producer's own key stays free for the corrected submission, as it does where a
/// refusal is answered and not stored.
fn refused_key(key: &str) -> String {
    if key.len() <= MAX_SHOWN_KEY {
        format!("refused {key}")
    } else {
        format!("refused sha256:{}", ids::sha256_hex(key.as_bytes()))
    }
}

/// The key as messages show it. A key may itself be personal data; its digest is shown then, because two different keys can
/// be equal after redaction.
fn public_key(key: &str, rules: &Rules) -> String {
    if rules.redact(key, &mut Redactions::default()) == key {
        key.to_owned()
    } else {
        format!("sha256:{}", ids::sha256_hex(key.as_bytes()))
    }
}

fn rejected(message: TaskSubmitted, refusal: &Refusal) -> Result<TaskRejected, ContractError> {
    Ok(TaskRejected {
        task: message.task,
        tenant: message.tenant,
        source: message.source,
        received_at: message.received_at,
        idempotency_key: message.idempotency_key,
        fingerprint: message.fingerprint,
        redactions: message.redactions,
        submission: message.submission,
        reason: refusal.reason,
        detail: Text::cut(&refusal.detail)?,
    })
}
