//! Decides what becomes of one ingest entry. Pure: no I/O; the clock is passed in.

use bus::Entry;
use bytes::Bytes;
use contracts::events::{DeadReason, Source};
use contracts::topology::Topology;
use contracts::{ids, ContractError};

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
            SubmitError::Conflict(_) => {
                let message = "idempotency key already used for another body";
                Some(Self::new(error.outcome(), message))
            }
            _ => None,
        }
    }

    fn reason(&self) -> DeadReason {
        match self.outcome {
            Outcome::Malformed => DeadReason::Unreadable,
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
    let body = Bytes::copy_from_slice(fields.body);
    Ok(Submission {
        source: Source::Stream,
        received: body.clone(),
        body,
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
    let field = |wanted: &[u8]| {
        let found = entry.fields.iter().find(|(name, _)| name == wanted);
        found.map_or(&[][..], |(_, value)| value)
    };
    let tenant = &context.caller.tenant;
    let dead_letter = DeadLetterContext {
        tenant,
        stream: context.stream,
        group: &context.topology.ingest.group,
        entry: &entry.id,
        consumer: context.consumer,
        // A delivery beyond the limit is not another attempt.
        delivery: entry.delivery.min(context.topology.ingest.max_deliveries),
        message_type: field(b"type"),
        original: field(b"body"),
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
