//! The metrics of this process, in Prometheus' text format.

use std::sync::OnceLock;
use std::time::Duration;

use contracts::events::Source;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use strum::{EnumCount, IntoStaticStr};

use crate::outcome::Outcome;
use crate::quotas::Limit;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0,
];

/// Requests that are not submissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Route {
    Status,
    Cancel,
    Redrive,
    DropDeadLetter,
    Events,
    Quota,
    Proxy,
    ProxyCommand,
    /// A batch of submissions; each item also counts as a submission.
    Batch,
    /// Refused before its route was looked at.
    Any,
}

impl Route {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The label of a submission's source.
#[must_use]
pub fn label(source: Source) -> &'static str {
    match source {
        Source::Http => "http",
        Source::Webhook => "webhook",
        Source::Stream => "ingest",
    }
}

type Label = (&'static str, &'static str);

/// The series of one source.
struct KnownSeries {
    /// By outcome.
    admissions: [OnceLock<Counter>; Outcome::COUNT],
    seconds: OnceLock<Histogram>,
}

impl Default for KnownSeries {
    fn default() -> Self {
        Self {
            admissions: std::array::from_fn(|_| OnceLock::new()),
            seconds: OnceLock::new(),
        }
    }
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    admissions: Family<[Label; 2], Counter>,
    seconds: Family<[Label; 1], Histogram>,
    /// The series of `admissions` and `seconds` that exist, so that a submission looks for none.
    known: [KnownSeries; Source::ALL.len()],
    waits: Family<[Label; 1], Counter>,
    requests: Family<[Label; 2], Counter>,
    authentications: Family<[Label; 1], Counter>,
    in_flight: Gauge,
    event_streams: Gauge,
    quota_refusals: Family<[Label; 2], Counter>,
    quota_tokens: Family<[Label; 1], Counter>,
    quotas_file_valid: Gauge,
    connections_refused: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("octollm");
        let admissions = Family::<[Label; 2], Counter>::default();
        let seconds =
            Family::<[Label; 1], Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let waits = Family::<[Label; 1], Counter>::default();
        let requests = Family::<[Label; 2], Counter>::default();
        let authentications = Family::<[Label; 1], Counter>::default();
        let (in_flight, event_streams) = (Gauge::default(), Gauge::default());
        let connections_refused = Counter::default();
        registry.register(
            "admission",
            "Submissions by source and outcome",
            admissions.clone(),
        );
        registry.register(
            "admission_duration_seconds",
            "Time from the last byte of a submission to its outcome, by source",
            seconds.clone(),
        );
        registry.register(
            "ingest_waits",
            "Backoff of ingest entries that cannot be stored yet, by cause",
            waits.clone(),
        );
        registry.register(
            "requests",
            "Reads and commands, by route and outcome",
            requests.clone(),
        );
        registry.register(
            "authentications",
            "Checks of who a request acts for, by outcome",
            authentications.clone(),
        );
        registry.register("event_streams", "Open event streams", event_streams.clone());
        registry.register(
            "http_in_flight",
            "HTTP requests in flight",
            in_flight.clone(),
        );
        let quota_refusals = Family::<[Label; 2], Counter>::default();
        let quota_tokens = Family::<[Label; 1], Counter>::default();
        let quotas_file_valid = Gauge::default();
        quotas_file_valid.set(1);
        registry.register(
            "quota_refusals",
            "Requests above a quota, by limit and by how they arrived",
            quota_refusals.clone(),
        );
        registry.register(
            "quota_tokens",
            "Tokens that Redis has granted to this process, by limit",
            quota_tokens.clone(),
        );
        registry.register(
            "quotas_file_valid",
            "0 while the file of quotas is refused and the quotas before it are in force",
            quotas_file_valid.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections closed at once, because their client had too many",
            connections_refused.clone(),
        );
        service::logging::register_metrics(&mut registry);
        Self {
            registry,
            admissions,
            seconds,
            known: Default::default(),
            waits,
            requests,
            authentications,
            in_flight,
            event_streams,
            quota_refusals,
            quota_tokens,
            quotas_file_valid,
            connections_refused,
        }
    }
}

impl Metrics {
    /// Counts the end of one submission; `took` is the time since its last byte.
    pub fn submission_ended(&self, source: Source, outcome: Outcome, took: Duration) {
        let known = &self.known[source as usize];
        let source = ("source", label(source));
        let count = known.admissions[outcome as usize].get_or_init(|| {
            let labels = [source, ("outcome", outcome.as_str())];
            self.admissions.get_or_create(&labels).clone()
        });
        count.inc();
        let seconds = known
            .seconds
            .get_or_init(|| self.seconds.get_or_create(&[source]).clone());
        seconds.observe(took.as_secs_f64());
    }

    /// Counts one pause of an ingest entry.
    pub fn ingest_waited(&self, cause: Outcome) {
        self.waits.get_or_create(&[("cause", cause.as_str())]).inc();
    }

    /// Counts the end of a request that is not a submission.
    pub fn request_ended(&self, route: Route, outcome: Outcome) {
        self.requests
            .get_or_create(&[("route", route.as_str()), ("outcome", outcome.as_str())])
            .inc();
    }

    /// Counts one check of who a request acts for.
    pub fn authenticated(&self, outcome: Outcome) {
        self.authentications
            .get_or_create(&[("outcome", outcome.as_str())])
            .inc();
    }

    /// Counts a request above a quota; `source` is how it arrived.
    pub fn quota_refused(&self, limit: Limit, source: &'static str) {
        self.quota_refusals
            .get_or_create(&[("limit", limit.as_str()), ("source", source)])
            .inc();
    }

    /// Counts tokens that Redis has granted.
    pub fn quota_granted(&self, limit: Limit, tokens: u64) {
        self.quota_tokens
            .get_or_create(&[("limit", limit.as_str())])
            .inc_by(tokens);
    }

    /// Says whether the file of quotas is in force.
    pub fn quotas_file(&self, valid: bool) {
        self.quotas_file_valid.set(i64::from(valid));
    }

    /// Counts a connection that was closed at once.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Counts a request as in flight until the guard is dropped, also if the client disconnects.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        InFlight::begin(&self.in_flight)
    }

    /// Counts an event stream as open until the guard is dropped.
    #[must_use]
    pub fn event_stream(&self) -> InFlight {
        InFlight::begin(&self.event_streams)
    }

    /// Returns all metrics as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Counts one request or event stream while it exists.
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
