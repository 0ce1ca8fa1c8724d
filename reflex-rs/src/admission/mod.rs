//! Admission: decides what becomes of one submission. Pure: the clock and the random bits are passed in.
//!
//! Layers, from the bottom: `submission` (data) → `prefilter` and `rules` (compiled patterns) → `redact` (applies them to a
//! submission) and `input` (whether its kind can be planned with its input) → this file (the decision) and `dead_letter` (the record of an ingest entry that never became a task).
//! `fingerprint` tells a repeat from another task.

mod dead_letter;
mod escapes;
mod fingerprint;
mod input;
mod prefilter;
mod redact;
mod rules;
mod submission;

pub use dead_letter::{DeadLetterContext, DeadLetterMessage};
pub use rules::{Redactions, Rules, RulesError};
pub use submission::{idempotency_key, Admitted, Refusal, Stamp, Submission};

use contracts::events::{
    read_checked, write, AnyObject, DigestMap, Event, Kind, Priority, RefusalReason, Sha256,
    TaskId, TaskRejected, TaskSubmission, TaskSubmitted, Timestamp,
};
use contracts::topology::Topology;
use contracts::{ids, strict_json, ContractError};

use self::input::Input;
use crate::byte_order::without_mark;
use crate::caller::Caller;
use crate::kinds::Table;

/// How far ahead a task may be scheduled.
const MAX_AHEAD_MS: u64 = 30 * 86_400_000;

/// Nesting of a submission. Every message that carries a part of it adds levels of its own, and the same bound as for a
/// step's output leaves space for them.
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
    kinds: Option<&Table>,
    topology: &Topology,
) -> Result<Admitted, ContractError> {
    let admission = Admission {
        caller,
        submission,
        stamp,
        rules,
        kinds,
        topology,
    };
    let (text, clean) = canonical(submission, rules)?;
    if clean {
        admission.unchanged(&text)
    } else {
        admission.by_rules(&text)
    }
}

/// Returns the submission in canonical form, and whether no rule has anything to do with it.
fn canonical(submission: &Submission, rules: &Rules) -> Result<(Vec<u8>, bool), ContractError> {
    let mut clean = !submission.tenant_mismatch;
    let body = without_mark(&submission.body)?;
    let text = strict_json::canonicalize(body, MAX_DEPTH, |text| {
        clean = clean && rules.is_clean(text);
    })?;
    Ok((text, clean))
}

/// One submission and what decides about it.
struct Admission<'a> {
    caller: &'a Caller,
    submission: &'a Submission,
    stamp: Stamp,
    rules: &'a Rules,
    /// `None` if nothing is published; the orchestrator decides then.
    kinds: Option<&'a Table>,
    topology: &'a Topology,
}

/// What tells a task from all others.
struct Identity {
    task: TaskId,
    lane: String,
    idempotency_key: String,
    fingerprint: String,
    created_at: String,
}

impl Admission<'_> {
    /// Admits a submission that no rule changes or refuses: its JSON text becomes a part of the message as it is.
    fn unchanged(&self, text: &[u8]) -> Result<Admitted, ContractError> {
        let Some(kinds) = self.kinds else {
            return self.message_of(read_checked::<TaskSubmission<AnyObject>>(text)?, text);
        };
        let request: TaskSubmission<Input> = read_checked(text)?;
        let kind = request.kind.as_ref().map(Kind::as_str);
        if kinds.admits(kind, input::of(request.input.as_ref())) {
            self.message_of(request, text)
        } else {
            self.by_rules(text)
        }
    }

    /// Admits a submission whose JSON text is `text`.
    fn message_of<I>(
        &self,
        request: TaskSubmission<I>,
        text: &[u8],
    ) -> Result<Admitted, ContractError> {
        check_not_before(request.not_before.as_ref(), self.stamp.now_ms)?;
        let identity = self.identity(text, false)?;
        let message = self.message(&identity, Redactions::default(), ())?;
        Ok(Admitted {
            kind: request.kind.map(Into::into),
            priority: request.priority.unwrap_or(Priority::Normal),
            body: message.write_with(text)?,
            ..self.admitted(identity)
        })
    }

    /// Applies the rules to every text of the submission.
    fn by_rules(&self, text: &[u8]) -> Result<Admitted, ContractError> {
        let mut request: TaskSubmission = read_checked(text)?;
        check_not_before(request.not_before.as_ref(), self.stamp.now_ms)?;
        let refusal = refusal(&request, self.submission.tenant_mismatch, self.rules);
        let redactions = redact::submission(&mut request, self.rules)?;
        // What is checked is what later stages get.
        let refusal = refusal.or_else(|| input::refusal(&mut request, self.kinds?));
        let identity = self.identity(text, refusal.is_some())?;
        let kind = request.kind.as_ref().map(ToString::to_string);
        let priority = request.priority.unwrap_or(Priority::Normal);
        let message = self.message(&identity, redactions, request)?;
        let (message_type, body) = match &refusal {
            None => (TaskSubmitted::<TaskSubmission>::TYPE, write(&message)?),
            Some(refusal) => (TaskRejected::TYPE, write(&rejected(message, refusal)?)?),
        };
        Ok(Admitted {
            kind,
            priority,
            message_type,
            body,
            refusal,
            ..self.admitted(identity)
        })
    }

    /// `text`: the submission in canonical form.
    fn identity(&self, text: &[u8], refused: bool) -> Result<Identity, ContractError> {
        let given_key = self.submission.idempotency_key.as_deref();
        let ulid = ids::ulid(self.stamp.now_ms, self.stamp.random);
        let tenant = self.caller.tenant.as_str();
        let lane = self.topology.lane_for(tenant, given_key.unwrap_or(&ulid));
        let lane = lane.to_owned();
        let task = ids::task_id(&lane, &ulid)?;
        let idempotency_key = match (given_key, refused) {
            (Some(key), true) => refused_key(key),
            (given, _) => given.unwrap_or(task.as_str()).to_owned(),
        };
        Ok(Identity {
            task,
            lane,
            idempotency_key,
            fingerprint: match &self.submission.received {
                Some(received) => fingerprint::of_received(received),
                None => fingerprint::of_canonical(text),
            },
            created_at: ids::timestamp(self.stamp.now_ms),
        })
    }

    /// The message of the admitted task; `content` is what is known of the submission.
    fn message<S>(
        &self,
        identity: &Identity,
        redactions: Redactions,
        content: S,
    ) -> Result<TaskSubmitted<S>, ContractError> {
        Ok(TaskSubmitted {
            task: identity.task.clone(),
            tenant: self.caller.tenant.clone(),
            source: self.submission.source,
            received_at: Timestamp::try_from(identity.created_at.clone())?,
            idempotency_key: public_key(&identity.idempotency_key, self.rules).try_into()?,
            fingerprint: Sha256::try_from(identity.fingerprint.clone())?,
            redactions: DigestMap::try_from(redactions.counts())?,
            submission: content,
        })
    }

    /// The task without what its submission says.
    fn admitted(&self, identity: Identity) -> Admitted {
        Admitted {
            task: identity.task,
            lane: identity.lane,
            tenant: self.caller.tenant.clone(),
            kind: None,
            priority: Priority::Normal,
            idempotency_key: identity.idempotency_key,
            fingerprint: identity.fingerprint,
            message_type: TaskSubmitted::<TaskSubmission>::TYPE,
            traceparent: self.submission.traceparent.clone(),
            body: Vec::new(),
            created_at: identity.created_at,
            refusal: None,
        }
    }
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
            violations: Vec::new(),
        });
    }
    let (field, rule) = redact::find_injection(request, rules)?;
    Some(Refusal {
        reason: RefusalReason::Injection,
        detail: format!("{field} looks like a prompt injection (rule {rule})"),
        violations: Vec::new(),
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
    if rules.redacted(key, &mut Redactions::default()).is_none() {
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
        detail: refusal.detail.clone().try_into()?,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use contracts::events::Source;
    use contracts::topology;
    use serde_json::Value;

    use super::{canonical, Admission, Rules, Stamp, Submission};
    use crate::caller::Caller;

    /// Bodies with which no rule has anything to do, in forms that parsers and writers may treat differently.
    const CLEAN: [&str; 9] = [
        r#"{"goal": "x"}"#,
        " {\"goal\" : \"x\" ,\n\"kind\":\"note\"\t}\r\n",
        r#"{"input": {"b": 1, "a": [0, -7, 18446744073709551615]}, "goal": "order of keys"}"#,
        r#"{"goal": "numbers", "input": {"n": [1.0, 1e2, 0.1, -0.0, 1.5E-3, 123456789012345680000.0, 5e-324]}}"#,
        r#"{"goal": "\u00fcber \ud83d\ude00 \/ \" \\ \b\f\n\r\t \u001f \u007f"}"#,
        r#"{"goal": "empty", "input": {}, "metadata": {}}"#,
        r#"{"goal": "all", "kind": "note", "input": {"a": {"b": [[], {}, null, true, false, ""]}}, "priority": "low",
            "deadline_s": 60, "metadata": {"k": "v", "\u0061": "w"}}"#,
        r#"{"goal": "escaped keys", "input": {"\u006b\n": {"\"": 1}}}"#,
        r#"{"go\u0061l": "an escaped field"}"#,
    ];

    #[test]
    fn a_submission_that_no_rule_concerns_becomes_the_same_message_by_either_way() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let topology =
            topology::load(&root.join("streams.yaml"), &root.join("schemas/events")).unwrap();
        let rules = Rules::built_in().unwrap();
        let caller = Caller::new("acme".parse().unwrap());
        let stamp = Stamp {
            now_ms: 1_700_000_000_000,
            random: [7; 10],
        };
        for body in CLEAN {
            let submission = Submission {
                source: Source::Http,
                body: body.into(),
                received: None,
                idempotency_key: Some("k".to_owned()),
                traceparent: String::new(),
                tenant_mismatch: false,
            };
            let (text, clean) = canonical(&submission, &rules).unwrap();
            assert!(clean, "{body}");
            let admission = Admission {
                caller: &caller,
                submission: &submission,
                stamp,
                rules: &rules,
                kinds: None,
                topology: &topology,
            };
            let mut fast = admission.unchanged(&text).unwrap();
            let mut slow = admission.by_rules(&text).unwrap();
            let value = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
            assert_eq!(value(&fast.body), value(&slow.body), "{body}");
            assert_eq!(value(&text), value(body.as_bytes()), "{body}");
            fast.body.clear();
            slow.body.clear();
            assert_eq!(format!("{fast:?}"), format!("{slow:?}"), "{body}");
        }
    }
}
