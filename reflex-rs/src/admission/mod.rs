//! Admission: what becomes of one submission. Pure: no I/O; the clock and the random bits are passed in.

mod entry;
mod letter;
mod redact;
mod rules;
pub mod signatures;

pub use entry::{fields, idempotency_key, Fields};
pub use letter::{Grave, Letter};
pub use redact::Redactions;
pub use rules::{Rules, RulesError};

use contracts::events::{
    read, write, DigestMap, Event, Priority, RefusalReason, Sha256, Source, TaskId, TaskRejected,
    TaskSubmission, TaskSubmitted, Tenant, Text, Timestamp,
};
use contracts::topology::Topology;
use contracts::{ids, ContractError};

/// How far ahead a task may be put off.
const FURTHEST_MS: u64 = 30 * 86_400_000;

/// What came in, with everything that is not its own text.
pub struct Arrival<'a> {
    /// The submission as JSON text.
    pub body: &'a [u8],
    /// The bytes that came in; their digest tells a repeat from another task. A webhook's body becomes a submission, so the
    /// two differ there.
    pub received: &'a [u8],
    pub tenant: &'a Tenant,
    pub source: Source,
    /// The producer's key; for an ingest entry without one, entry id and body hash.
    pub key: Option<&'a str>,
    pub traceparent: &'a str,
    /// An ingest entry that names another tenant than its stream.
    pub foreign: bool,
    pub now_ms: u64,
    pub random: [u8; 10],
}

/// A task that is ready to be stored.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub task: TaskId,
    pub lane: String,
    pub tenant: Tenant,
    pub kind: Option<String>,
    pub priority: Priority,
    pub key: String,
    pub fingerprint: String,
    pub message_type: &'static str,
    pub traceparent: String,
    pub body: Vec<u8>,
    pub created_at: String,
    /// Set where this is a refusal that is to be recorded.
    pub refusal: Option<Refusal>,
}

/// Why a readable submission is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RefusalReason,
    pub detail: String,
}

/// Decides on one submission. `Err` means the text is not a submission at all.
pub fn admit(
    arrival: &Arrival<'_>,
    rules: &Rules,
    topology: &Topology,
) -> Result<Admitted, ContractError> {
    let mut submission: TaskSubmission = read(arrival.body)?;
    check_moment(submission.not_before.as_ref(), arrival.now_ms)?;
    let refusal = refusal(&submission, arrival.foreign, rules);
    let redactions = redact::submission(&mut submission, rules)?;
    let ulid = ids::ulid(arrival.now_ms, arrival.random);
    let lane = topology
        .lane_for(arrival.tenant.as_str(), arrival.key.unwrap_or(&ulid))
        .to_owned();
    let task = ids::task_id(&lane, &ulid)?;
    let created_at = ids::timestamp(arrival.now_ms);
    let fingerprint = ids::sha256_hex(arrival.received);
    let key = arrival.key.unwrap_or(task.as_str()).to_owned();
    let kind = submission.kind.as_ref().map(ToString::to_string);
    let priority = submission.priority.unwrap_or(Priority::Normal);
    let head = TaskSubmitted {
        task: task.clone(),
        tenant: arrival.tenant.clone(),
        source: arrival.source,
        received_at: Timestamp::try_from(created_at.clone())?,
        idempotency_key: Text::cut(&shown_key(&key, rules))?,
        fingerprint: Sha256::try_from(fingerprint.clone())?,
        redactions: DigestMap::try_from(redactions.counts())?,
        submission,
    };
    let (message_type, body) = match &refusal {
        None => (TaskSubmitted::TYPE, write(&head)?),
        Some(refusal) => (TaskRejected::TYPE, write(&rejected(head, refusal)?)?),
    };
    Ok(Admitted {
        task,
        lane,
        tenant: arrival.tenant.clone(),
        kind,
        priority,
        key,
        fingerprint,
        message_type,
        traceparent: arrival.traceparent.to_owned(),
        body,
        created_at,
        refusal,
    })
}

/// A day that is in no calendar is as wrong as one that is too far away.
fn check_moment(moment: Option<&Timestamp>, now_ms: u64) -> Result<(), ContractError> {
    let Some(text) = moment.map(Timestamp::as_str) else {
        return Ok(());
    };
    let ms = ids::timestamp_ms(text).filter(|ms| ids::timestamp(*ms) == text);
    let why = match ms {
        None => "must be a time that exists, from 1970 on",
        Some(ms) if ms > now_ms.saturating_add(FURTHEST_MS) => "must be at most 30 days ahead",
        Some(_) => return Ok(()),
    };
    Err(ContractError::schema("not_before", why))
}

fn refusal(submission: &TaskSubmission, foreign: bool, rules: &Rules) -> Option<Refusal> {
    if foreign {
        return Some(Refusal {
            reason: RefusalReason::TenantMismatch,
            detail: "names another tenant than its stream; write to that tenant's stream"
                .to_owned(),
        });
    }
    let (place, rule) = redact::find_injection(submission, rules)?;
    Some(Refusal {
        reason: RefusalReason::Injection,
        detail: format!("{place} looks like a prompt injection (rule {rule})"),
    })
}

/// A producer's key may be personal data itself. Then a digest travels, since two keys may be the same when redacted.
fn shown_key(key: &str, rules: &Rules) -> String {
    if rules.redact(key, &mut Redactions::default()) == key {
        key.to_owned()
    } else {
        format!("sha256:{}", ids::sha256_hex(key.as_bytes()))
    }
}

fn rejected(head: TaskSubmitted, refusal: &Refusal) -> Result<TaskRejected, ContractError> {
    Ok(TaskRejected {
        task: head.task,
        tenant: head.tenant,
        source: head.source,
        received_at: head.received_at,
        idempotency_key: head.idempotency_key,
        fingerprint: head.fingerprint,
        redactions: head.redactions,
        submission: head.submission,
        reason: refusal.reason,
        detail: Text::cut(&refusal.detail)?,
    })
}
