//! A message that was given up on (`dead.letter.v1`), and the word that nothing is to be done about it (`dead.drop.v1`).

use serde::{Deserialize, Serialize};

use super::fields::{words, Bytes, Count, Int, Sha256, Tenant, Text, Timestamp, MAX_SAFE};
use super::reading::present;

words!(
    /// Why a message was given up on.
    DeadReason {
        Malformed = "malformed", Schema = "schema", Misrouted = "misrouted",
        DeliveriesExhausted = "deliveries_exhausted", FailuresExhausted = "failures_exhausted",
    }
);
words!(
    /// Whether admission had seen it; before admission the original is redacted.
    Stage { BeforeAdmission = "before_admission", AfterAdmission = "after_admission" }
);

/// The entry's extra field `original` holds the text itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    pub reason: DeadReason,
    pub message: Text<1, 2000>,
    pub stage: Stage,
    pub stream: Text<0, 300>,
    pub group: Text<0, 300>,
    pub entry: Text<0, 300>,
    pub consumer: Text<0, 300>,
    pub delivery: Count,
    #[serde(rename = "type")]
    pub message_type: Text<0, 300>,
    pub id: Text<0, 300>,
    pub tenant: Text<0, 300>,
    pub bytes: Bytes,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub sha256: Option<Sha256>,
    pub at: Timestamp,
}

/// Somebody has seen a dead letter and wants nothing done about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadDrop {
    /// Its number in the archive.
    pub dead_letter: Int<1, MAX_SAFE>,
    pub tenant: Tenant,
    pub requested_at: Timestamp,
}
