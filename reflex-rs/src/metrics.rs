//! What can be counted, in Prometheus' text format. Every submission ends in exactly one `Outcome`, which is the label.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0,
];

/// Where a submission came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Http,
    Ingest,
    Webhook,
}

impl Door {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Ingest => "ingest",
            Self::Webhook => "webhook",
        }
    }
}

/// What is asked for besides submissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Status,
    Cancel,
    Redrive,
    /// Of a dead letter.
    Drop,
    Events,
    Forward,
}

impl Route {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Cancel => "cancel",
            Self::Redrive => "redrive",
            Self::Drop => "drop",
            Self::Events => "events",
            Self::Forward => "forward",
        }
    }
}

/// How a submission or another request ended. The word is the metric's label and, over HTTP, the code of the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// A repeat of what is known already; nothing was stored anew.
    Duplicate,
    /// The idempotency key belongs to another body.
    Conflict,
    /// Readable, but looks like a prompt injection.
    Injection,
    Unreadable,
    Schema,
    TooLarge,
    MediaType,
    IdempotencyKey,
    /// The body did not come in time.
    Timeout,
    /// The body broke off.
    Body,
    /// Too many tasks wait.
    Busy,
    /// Redis has no memory left.
    Full,
    /// Redis is away.
    Redis,
    /// A durability was asked for that there is not.
    Durability,
    /// It could not be made as durable as needed, so nothing was stored.
    NotDurable,
    /// Stored, and not known to be as durable as needed.
    Unconfirmed,
    /// A webhook event that its source does not map.
    Ignored,
    /// A webhook without a signature that fits, or too old.
    Signature,
    /// A webhook source that nobody declared.
    Source,
    /// A webhook source without a secret.
    Closed,
    /// A header that a webhook's scheme needs is missing.
    Header,
    /// An ingest entry that no reflex could finish.
    DeliveriesExhausted,
    /// A read was answered, or its answer begun.
    Served,
    /// A task was marked as cancelled.
    Marked,
    /// A task that was to be cancelled had ended.
    Ended,
    /// A run was asked for, or a dead letter's end.
    Asked,
    /// Nothing was asked for: it is as it should be.
    Left,
    NotFound,
    Method,
    /// Nobody can tell where a live view should go on.
    Position,
    /// As many live views or forwarded reads as the settings allow.
    Crowded,
    /// The API is away.
    Api,
    /// No API is configured.
    NoApi,
    /// A fault of ours.
    Internal,
}

impl Outcome {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Injection => "injection",
            Self::Unreadable => "unreadable",
            Self::Schema => "schema",
            Self::TooLarge => "too_large",
            Self::MediaType => "media_type",
            Self::IdempotencyKey => "idempotency_key",
            Self::Timeout => "timeout",
            Self::Body => "body",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Redis => "redis",
            Self::Durability => "durability",
            Self::NotDurable => "not_durable",
            Self::Unconfirmed => "unconfirmed",
            Self::Ignored => "ignored",
            Self::Signature => "signature",
            Self::Source => "source",
            Self::Closed => "closed",
            Self::Header => "header",
            Self::DeliveriesExhausted => "deliveries_exhausted",
            Self::Served => "served",
            Self::Marked => "marked",
            Self::Ended => "ended",
            Self::Asked => "asked",
            Self::Left => "left",
            Self::NotFound => "not_found",
            Self::Method => "method",
            Self::Position => "position",
            Self::Crowded => "crowded",
            Self::Api => "api",
            Self::NoApi => "no_api",
            Self::Internal => "internal",
        }
    }
}

type Label = (&'static str, &'static str);

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    admissions: Family<[Label; 2], Counter>,
    seconds: Family<[Label; 1], Histogram>,
    waits: Family<[Label; 1], Counter>,
    requests: Family<[Label; 2], Counter>,
    in_flight: Gauge,
    event_streams: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("octollm");
        let admissions = Family::<[Label; 2], Counter>::default();
        let seconds =
            Family::<[Label; 1], Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let waits = Family::<[Label; 1], Counter>::default();
        let requests = Family::<[Label; 2], Counter>::default();
        let (in_flight, event_streams) = (Gauge::default(), Gauge::default());
        registry.register(
            "admission",
            "Submissions by door and outcome",
            admissions.clone(),
        );
        registry.register(
            "admission_duration_seconds",
            "From a submission's last byte to its outcome, by door",
            seconds.clone(),
        );
        registry.register(
            "ingest_waits",
            "Pauses of ingest entries that could not be stored yet, by cause",
            waits.clone(),
        );
        registry.register(
            "requests",
            "Reads and commands by route and outcome",
            requests.clone(),
        );
        registry.register(
            "event_streams",
            "Live views that are open",
            event_streams.clone(),
        );
        registry.register(
            "http_in_flight",
            "HTTP requests being answered",
            in_flight.clone(),
        );
        Self {
            registry,
            admissions,
            seconds,
            waits,
            requests,
            in_flight,
            event_streams,
        }
    }
}

impl Metrics {
    /// Counts one submission's end.
    pub fn ended(&self, door: Door, outcome: Outcome, took: Duration) {
        let door = ("door", door.as_str());
        self.admissions
            .get_or_create(&[door, ("outcome", outcome.as_str())])
            .inc();
        self.seconds
            .get_or_create(&[door])
            .observe(took.as_secs_f64());
    }

    /// Counts one pause of an ingest entry.
    pub fn waited(&self, cause: Outcome) {
        self.waits.get_or_create(&[("cause", cause.as_str())]).inc();
    }

    /// Counts the end of a request that is no submission.
    pub fn answered(&self, route: Route, outcome: Outcome) {
        self.requests
            .get_or_create(&[("route", route.as_str()), ("outcome", outcome.as_str())])
            .inc();
    }

    /// Counts a request as in flight until the guard is dropped, also when the client goes away.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        InFlight::begin(&self.in_flight)
    }

    /// The same for a live view.
    #[must_use]
    pub fn event_stream(&self) -> InFlight {
        InFlight::begin(&self.event_streams)
    }

    /// Everything as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// One request in flight.
pub struct InFlight(Gauge);

impl InFlight {
    fn begin(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
