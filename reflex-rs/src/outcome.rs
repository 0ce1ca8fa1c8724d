//! How a submission or another request ends. The word is the metrics' label and, over HTTP, the code of the problem.

use strum::{EnumCount, IntoStaticStr};

/// Every submission and every request ends in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumCount, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// A task was stored, or a command was accepted.
    Accepted,
    /// The submission was stored before.
    Duplicate,
    /// The idempotency key belongs to another submission.
    IdempotencyKeyReused,
    /// The submission looks like a prompt injection.
    Injection,
    /// No kind is given, and no model plans such tasks.
    NeedsModel,
    /// No recipe has this kind.
    UnknownKind,
    /// The input does not fit its kind.
    InvalidInput,
    /// The body is not strict JSON.
    Malformed,
    /// The body breaks its schema.
    Schema,
    TooLarge,
    UnsupportedMediaType,
    /// The body has a content encoding that is not decoded.
    UnsupportedEncoding,
    InvalidIdempotencyKey,
    /// The body did not arrive in time.
    Timeout,
    /// The body broke off.
    IncompleteBody,
    /// The client disconnected before it sent the whole request.
    ClientDisconnected,
    /// More tasks are queued, or more requests are open, than the settings allow.
    Overloaded,
    /// The caller's quota does not allow it now.
    QuotaExceeded,
    /// The store has no memory left.
    StoreFull,
    StoreUnavailable,
    /// The header `OctoLLM-Durability` is invalid.
    InvalidDurability,
    /// The submission cannot be made as durable as required; nothing was stored.
    NotDurable,
    /// The submission was stored, and it is not known to be as durable as required.
    Unconfirmed,
    /// The webhook source does not map this event.
    Ignored,
    /// The sender of a webhook checked the address.
    AddressChecked,
    /// A webhook's signature is missing, does not match or has expired.
    InvalidSignature,
    /// No webhook source has this name.
    UnknownSource,
    /// The webhook source has no secret.
    SourceNotConfigured,
    /// A header that the webhook scheme needs is missing or invalid.
    MissingHeader,
    /// An ingest entry was delivered as often as the topology allows.
    DeliveriesExhausted,
    /// A read was answered, or its answer has begun.
    Served,
    /// A task that was to be cancelled had ended before.
    Ended,
    /// A command changed nothing, because nothing was left to do.
    Unchanged,
    /// A request without a credential names a host that is not local or not its own.
    ForeignHost,
    /// The request has no credential and needs one.
    MissingCredential,
    /// The credential is wrong, unknown, revoked or altered.
    InvalidCredential,
    ExpiredCredential,
    /// The credential does not have the scope that the request needs.
    InsufficientScope,
    /// Nobody can say now whether a credential is valid.
    CredentialsUnavailable,
    NotFound,
    MethodNotAllowed,
    /// Neither `Last-Event-ID` nor `after` is the id of an event.
    InvalidLastEventId,
    ApiUnavailable,
    ApiNotConfigured,
    /// A fault of this program or of the stored data.
    Internal,
}

impl Outcome {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
