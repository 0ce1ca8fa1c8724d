//! What becomes of one ingest entry. Pure: no I/O; the clock and the random bits are passed in.

use contracts::events::{DeadReason, Source, Tenant};
use contracts::topology::Topology;
use contracts::{ids, ContractError, Reason};

use crate::admission::{self, Admitted, Arrival, Grave, Letter, Rules};
use bus::Entry;

/// What is known beside the entry itself.
pub(super) struct Circumstances<'a> {
    pub rules: &'a Rules,
    pub topology: &'a Topology,
    pub tenant: &'a Tenant,
    pub stream: &'a str,
    pub consumer: &'a str,
    pub body_limit: usize,
    pub now_ms: u64,
    pub random: [u8; 10],
    /// For an entry that brings none.
    pub traceparent: &'a str,
}

/// What is to be stored before the entry may go.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A task, or a refusal that is recorded as a rejected task.
    Task(Box<Admitted>),
    Letter(Letter, Ending),
}

/// Why there is a letter; the outcome's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Unreadable,
    Schema,
    TooLarge,
    Conflict,
    DeliveriesExhausted,
}

impl Ending {
    fn reason(self) -> DeadReason {
        match self {
            Self::Unreadable => DeadReason::Unreadable,
            Self::Schema | Self::TooLarge | Self::Conflict => DeadReason::Schema,
            Self::DeliveriesExhausted => DeadReason::DeliveriesExhausted,
        }
    }
}

pub(super) fn judge(entry: &Entry, about: &Circumstances<'_>) -> Result<Verdict, ContractError> {
    let most = about.topology.ingest.max_deliveries;
    if entry.delivery > most {
        let message = format!("delivered {most} times without an end");
        return letter(entry, about, Ending::DeliveriesExhausted, &message);
    }
    let fields = match admission::fields(&entry.fields, about.tenant.as_str()) {
        Ok(fields) => fields,
        Err(error) => return letter(entry, about, Ending::Schema, &error.message),
    };
    if fields.body.len() > about.body_limit {
        let message = format!("the body has more than {} bytes", about.body_limit);
        return letter(entry, about, Ending::TooLarge, &message);
    }
    let own_key = format!("{} {}", entry.id, ids::sha256_hex(fields.body));
    let arrival = Arrival {
        body: fields.body,
        received: fields.body,
        tenant: about.tenant,
        source: Source::Stream,
        key: Some(fields.key.unwrap_or(&own_key)),
        traceparent: about.traceparent,
        foreign: fields.foreign,
        now_ms: about.now_ms,
        random: about.random,
    };
    match admission::admit(&arrival, about.rules, about.topology) {
        Ok(admitted) => Ok(Verdict::Task(Box::new(admitted))),
        Err(error) => {
            let ending = match error.reason {
                Reason::Unreadable => Ending::Unreadable,
                Reason::Schema => Ending::Schema,
            };
            letter(entry, about, ending, &error.to_string())
        }
    }
}

/// The letter where `admit` found the entry's key in use.
pub(super) fn conflict(entry: &Entry, about: &Circumstances<'_>) -> Result<Verdict, ContractError> {
    let message = "idempotency key already used for another body";
    letter(entry, about, Ending::Conflict, message)
}

fn letter(
    entry: &Entry,
    about: &Circumstances<'_>,
    ending: Ending,
    message: &str,
) -> Result<Verdict, ContractError> {
    let field = |wanted: &[u8]| {
        let found = entry.fields.iter().find(|(name, _)| name == wanted);
        found.map_or(&[][..], |(_, value)| value)
    };
    let grave = Grave {
        tenant: about.tenant,
        stream: about.stream,
        group: &about.topology.ingest.group,
        entry: &entry.id,
        consumer: about.consumer,
        // A takeover beyond the cap is not one more try.
        delivery: entry.delivery.min(about.topology.ingest.max_deliveries),
        message_type: field(b"type"),
        original: field(b"body"),
        keep: about.body_limit,
        now_ms: about.now_ms,
    };
    let lane = about.topology.lane_for(about.tenant.as_str(), &entry.id);
    let traceparent = about.traceparent.to_owned();
    let letter = Letter::new(
        &grave,
        ending.reason(),
        message,
        about.rules,
        lane,
        traceparent,
    )?;
    Ok(Verdict::Letter(letter, ending))
}
