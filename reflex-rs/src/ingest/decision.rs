//! Decides what becomes of one ingest entry. Pure: no I/O; the clock is passed in.

use std::borrow::Cow;

use bus::Entry;
use bytes::Bytes;
use contracts::events::{DeadReason, Source};
use contracts::topology::Topology;
use contracts::{ids, ContractError};
use serde_json::Value;

use super::fields;
use crate::admission::{DeadLetterContext, DeadLetterMessage, Rules, Submission};
use crate::caller::Caller;
use crate::outcome::Outcome;
use crate::submit::SubmitError;

/// What is known besides the entry itself.
pub(super) struct EntryContext<'a> {
    pub rules: &'a Rules,
    pub topology: &'a Topology,
    pub caller: &'a Caller,
    pub stream: &'a str,
    pub consumer: &'a str,
    pub body_limit: usize,
    pub now_ms: u64,
    /// The entry's own, or a new one.
    pub traceparent: &'a str,
}

/// Why an entry becomes a dead letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub outcome: Outcome,
    pub message: String,
}

impl Failure {
    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            message: message.into(),
        }
    }

    /// The failure of an entry whose submission fails for good; `None` if it can succeed later.
    pub fn permanent(error: &SubmitError) -> Option<Self> {
        match error {
            SubmitError::Contract(contract) => {
                Some(Self::new(error.outcome(), contract.to_string()))
            }
            SubmitError::IdempotencyKeyReused(_) => {
                let message = "the idempotency key belongs to another task; use a new key";
                Some(Self::new(error.outcome(), message))
            }
            _ => None,
        }
    }

    fn reason(&self) -> DeadReason {
        match self.outcome {
            Outcome::Malformed => DeadReason::Malformed,
            Outcome::DeliveriesExhausted => DeadReason::DeliveriesExhausted,
            _ => DeadReason::Schema,
        }
    }
}

/// Reads the submission in an entry, or says why it becomes a dead letter.
pub(super) fn submission(entry: &Entry, context: &EntryContext<'_>) -> Result<Submission, Failure> {
    let max_deliveries = context.topology.ingest.max_deliveries;
    if entry.delivery > max_deliveries {
        let message = format!("delivered {max_deliveries} times without being finished");
        return Err(Failure::new(Outcome::DeliveriesExhausted, message));
    }
    let fields = fields::read(&entry.fields, context.caller.tenant.as_str())
        .map_err(|error| Failure::new(Outcome::Schema, error.message))?;
    if fields.body.len() > context.body_limit {
        let message = format!("the body has more than {} bytes", context.body_limit);
        return Err(Failure::new(Outcome::TooLarge, message));
    }
    // An entry without a key gets one that is the same at each delivery.
    let key = fields.idempotency_key.map_or_else(
        || format!("{} {}", entry.id, ids::sha256_hex(fields.body)),
        str::to_owned,
    );
    Ok(Submission {
        source: Source::Stream,
        body: Bytes::copy_from_slice(fields.body),
        received: None,
        idempotency_key: Some(key),
        traceparent: context.traceparent.to_owned(),
        tenant_mismatch: fields.tenant_mismatch,
    })
}

/// Builds the dead letter of an entry.
pub(super) fn dead_letter(
    entry: &Entry,
    context: &EntryContext<'_>,
    failure: &Failure,
) -> Result<DeadLetterMessage, ContractError> {
    let tenant = &context.caller.tenant;
    let field = |wanted: &[u8]| {
        let found = entry.fields.iter().find(|(name, _)| name == wanted);
        found.map_or(&[][..], |(_, value)| value)
    };
    // If the fields are wrong, the body may be under another name.
    let original = fields::read(&entry.fields, tenant.as_str()).map_or_else(
        |_| Cow::Owned(all_fields(entry)),
        |fields| Cow::Borrowed(fields.body),
    );
    let dead_letter = DeadLetterContext {
        tenant,
        stream: context.stream,
        group: &context.topology.ingest.group,
        entry: &entry.id,
        consumer: context.consumer,
        // A delivery beyond the limit is not another attempt.
        delivery: entry.delivery.min(context.topology.ingest.max_deliveries),
        message_type: field(b"type"),
        body: field(b"body"),
        original: &original,
        max_original_bytes: context.body_limit,
        now_ms: context.now_ms,
    };
    DeadLetterMessage::new(
        &dead_letter,
        failure.reason(),
        &failure.message,
        context.rules,
        context.topology.lane_for(tenant.as_str(), &entry.id),
        context.traceparent.to_owned(),
    )
}

/// The fields of an entry as JSON: an array of pairs of a name and a value, because a name may be repeated.
fn all_fields(entry: &Entry) -> Vec<u8> {
    let pairs = entry.fields.iter();
    let pairs = pairs.map(|(name, value)| {
        let text = |raw| String::from_utf8_lossy(raw).into_owned();
        Value::from(vec![text(name), text(value)])
    });
    pairs.collect::<Value>().to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use contracts::events::{read, DeadLetter, DeadReason};
    use contracts::topology::{self, Topology};

    use super::{dead_letter, submission, EntryContext, Failure};
    use crate::admission::Rules;
    use crate::caller::Caller;
    use crate::outcome::Outcome;
    use crate::submit::SubmitError;
    use bus::Entry;

    fn entry(delivery: u64, fields: &[(&str, &str)]) -> Entry {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Entry {
            stream: "ingest:acme".to_owned(),
            id: "1-1".to_owned(),
            delivery,
            fields: fields
                .iter()
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
        }
    }

    /// Runs `test` in the context of the tenant `acme`, with a body limit of 100 bytes.
    fn in_context(test: impl FnOnce(&EntryContext<'_>, &Topology)) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let topology =
            topology::load(&root.join("streams.yaml"), &root.join("schemas/events")).unwrap();
        let context = EntryContext {
            rules: &Rules::built_in().unwrap(),
            topology: &topology,
            caller: &Caller::new("acme".parse().unwrap()),
            stream: "ingest:acme",
            consumer: "reflex-1",
            body_limit: 100,
            now_ms: 0,
            traceparent: "",
        };
        test(&context, &topology);
    }

    #[test]
    fn an_entry_without_a_key_gets_one_that_depends_on_its_id_and_body() {
        in_context(|context, _| {
            let key = |fields: &[(&str, &str)]| {
                let submission = submission(&entry(1, fields), context).unwrap();
                submission.idempotency_key.unwrap()
            };
            assert_eq!(key(&[("body", "a"), ("idempotency_key", "k")]), "k");
            let (a, b) = (key(&[("body", "a")]), key(&[("body", "b")]));
            assert!(a.starts_with("1-1 ") && a != b, "{a} {b}");
            assert_eq!(key(&[("body", "a")]), a);
        });
    }

    #[test]
    fn what_can_never_succeed_fails_with_its_outcome() {
        in_context(|context, topology| {
            let limit = topology.ingest.max_deliveries;
            let long = "x".repeat(101);
            for (delivery, fields, outcome) in [
                (1, [("body", long.as_str())], Outcome::TooLarge),
                (1, [("surplus", "x")], Outcome::Schema),
                (limit + 1, [("body", "{}")], Outcome::DeliveriesExhausted),
            ] {
                let failure = submission(&entry(delivery, &fields), context).unwrap_err();
                assert_eq!(failure.outcome, outcome, "{fields:?}");
            }
            assert!(submission(&entry(limit, &[("body", "{}")]), context).is_ok());
        });
        assert!(Failure::permanent(&SubmitError::Overloaded).is_none());
    }

    #[test]
    fn a_dead_letter_keeps_all_fields_if_they_are_wrong() {
        in_context(|context, _| {
            for (fields, kept) in [
                (
                    vec![("data", r#"{"goal": "k"}"#)],
                    r#"[["data","{"goal": "k"}"]]"#,
                ),
                (
                    vec![("body", "b"), ("surplus", "ada@example.org")],
                    r#"[["body","b"],["surplus","[email]"]]"#,
                ),
                (vec![("body", "b"), ("type", "task.submission.v1")], "b"),
            ] {
                let entry = entry(1, &fields);
                let failure = Failure::new(Outcome::Schema, "wrong");
                let message = dead_letter(&entry, context, &failure).unwrap();
                assert_eq!(message.original, kept);
            }
        });
    }

    #[test]
    fn a_dead_letter_does_not_count_the_delivery_beyond_the_limit() {
        in_context(|context, topology| {
            let limit = topology.ingest.max_deliveries;
            let entry = entry(
                limit + 1,
                &[("body", "ada@example.org"), ("type", "task.submission.v1")],
            );
            let failure = submission(&entry, context).unwrap_err();
            let message = dead_letter(&entry, context, &failure).unwrap();
            assert_eq!(message.reason, DeadReason::DeliveriesExhausted);
            assert_eq!(message.original, "[email]");
            let body: DeadLetter = read(&message.body).unwrap();
            assert_eq!(body.delivery.get(), i64::try_from(limit).unwrap());
            assert_eq!(body.message_type.as_str(), "task.submission.v1");
        });
    }
}
