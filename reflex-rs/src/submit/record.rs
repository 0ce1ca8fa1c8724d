//! Records how a submission ended: exactly one metric and one log line, whatever happens.

use std::sync::Arc;
use std::time::Instant;

use axum::http::HeaderValue;
use contracts::events::{Source, TaskId};

use super::SubmitError;
use crate::caller::Caller;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::request_id;
use crate::trace;

/// What is logged about a submission besides its end.
#[derive(Debug, Clone)]
pub struct Context {
    pub source: Source,
    pub caller: Caller,
    pub traceparent: String,
    /// The name of the webhook source.
    pub webhook: Option<String>,
    /// The id and the delivery count of the ingest entry.
    pub entry: Option<(String, u64)>,
}

/// How a submission ended.
#[derive(Debug)]
pub struct FinalOutcome<'a> {
    pub outcome: Outcome,
    /// The task that was stored, now or before.
    pub task: Option<&'a TaskId>,
    /// Why, if the fault is on this side.
    pub cause: Option<String>,
}

impl From<Outcome> for FinalOutcome<'_> {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            task: None,
            cause: None,
        }
    }
}

impl<'a> From<&'a SubmitError> for FinalOutcome<'a> {
    fn from(error: &'a SubmitError) -> Self {
        FinalOutcome {
            outcome: error.outcome(),
            task: match error {
                SubmitError::Unconfirmed { task, .. } => Some(task),
                _ => None,
            },
            cause: Some(error.to_string()),
        }
    }
}

/// A submission whose end is not recorded yet.
///
/// If it is dropped before `finish`, the client has disconnected or the handler has panicked; that is recorded then.
#[must_use = "dropping it records that the client disconnected"]
pub struct Record {
    metrics: Arc<Metrics>,
    context: Context,
    started: Instant,
    /// The HTTP request that it came with.
    request: Option<HeaderValue>,
    finished: bool,
}

impl Record {
    pub fn new(metrics: Arc<Metrics>, context: Context) -> Self {
        Self {
            metrics,
            context,
            started: Instant::now(),
            request: request_id::current(),
            finished: false,
        }
    }

    /// Marks the arrival of the last byte. The duration is measured from here.
    pub fn received(&mut self) {
        self.started = Instant::now();
    }

    /// Records the end.
    pub fn finish(mut self, outcome: &FinalOutcome<'_>) {
        self.write(outcome);
    }

    fn write(&mut self, ending: &FinalOutcome<'_>) {
        self.finished = true;
        let FinalOutcome {
            outcome,
            task,
            cause,
        } = ending;
        let about = &self.context;
        self.metrics
            .submission_ended(about.source, *outcome, self.started.elapsed());
        let (task, outcome_word) = (task.map(TaskId::as_str), outcome.as_str());
        let (tenant, trace) = (
            about.caller.tenant.as_str(),
            trace::trace_id(&about.traceparent),
        );
        let credential = about.caller.credential.name();
        let request = self.request.as_ref().and_then(request_id::text);
        let (webhook, source) = (about.webhook.as_deref(), about.source.as_str());
        let (entry, delivery) = match &about.entry {
            Some((entry, delivery)) => (Some(entry.as_str()), Some(*delivery)),
            None => (None, None),
        };
        // The store's client reports an outage once, so not every submission does.
        if *outcome == Outcome::Internal {
            tracing::error!(
                task,
                tenant,
                credential,
                trace,
                request,
                source,
                webhook,
                entry,
                delivery,
                outcome = outcome_word,
                cause,
                "a submission failed"
            );
        } else {
            tracing::info!(
                task,
                tenant,
                credential,
                trace,
                request,
                source,
                webhook,
                entry,
                delivery,
                outcome = outcome_word,
                "a submission ended"
            );
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let ending = if std::thread::panicking() {
            FinalOutcome {
                cause: Some("its handler panicked".to_owned()),
                ..Outcome::Internal.into()
            }
        } else {
            Outcome::ClientDisconnected.into()
        };
        self.write(&ending);
    }
}
