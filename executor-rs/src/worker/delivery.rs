//! One delivery, from its lease to its outcome.

use std::time::Instant;

use bus::backoff::random_number;
use bus::{Backoff, Completion, Entry, Lease, LeaseState, StepRun};
use contracts::events::StepRequested;
use contracts::ids::in_flight_field;
use contracts::ContractError;
use tracing::Instrument;

use super::circuit_breaker::FailedStep;
use super::consumer::Consumer;
use super::execution::{execute, StepResult};
use crate::step::outcome::Outcome;
use crate::step::report::{Report, Reporter};
use crate::step::request::{parse_message, printable};

/// Run the entry's step, finish the entry, and count its outcome.
pub async fn run(consumer: &Consumer, entry: Entry, lease: Lease) {
    let trace: String = printable(entry.field("traceparent"))
        .chars()
        .skip(3)
        .take(32)
        .collect();
    let span = tracing::info_span!(
        "entry",
        message = %printable(entry.field("id")),
        tenant = %printable(entry.field("tenant")),
        trace,
    );
    let metrics = &consumer.shared.metrics;
    metrics.add_running(1);
    let outcome = handle(consumer, &entry, &lease).instrument(span).await;
    metrics.add_running(-1);
    metrics.count_outcome(outcome, 1);
}

async fn handle(consumer: &Consumer, entry: &Entry, lease: &Lease) -> Outcome {
    let started = Instant::now();
    let reporter = || Reporter {
        entry,
        topic: &consumer.topic,
        keys: &consumer.keys,
        worker: &consumer.group.consumer,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let run = StepRun::of(entry, &consumer.keys);
    let mut worker_failed = false;
    let report = match parse_message(entry, &consumer.topic) {
        Err(rejected) => {
            tracing::warn!(reason = rejected.reason.as_str(), cause = %rejected, "a message is not a step for this arm and becomes a dead letter");
            reporter().dead(rejected.reason, &rejected.message)
        }
        Ok(step) => match execute(consumer, run.as_ref(), &step, lease).await {
            StepResult::Stopped => match (lease.lost(), &run) {
                (Some(LeaseState::RunEnded), Some(run)) => {
                    Ok(Report::run_ended(run.in_flight.clone()))
                }
                (lost, _) => {
                    consumer.shared.breaker.record_neutral();
                    return match lost {
                        Some(state) => Outcome::from(state),
                        None => release_stopped(consumer, entry, &step).await,
                    };
                }
            },
            result => {
                worker_failed = matches!(
                    result,
                    StepResult::TransientFailure {
                        of_worker: true,
                        ..
                    }
                );
                report(&reporter(), &step, result)
            }
        },
    };
    let report = match report {
        Ok(report) => Some(report),
        Err(error) => {
            tracing::error!(%error, "a step's report cannot be written; its entry stays pending");
            None
        }
    };
    if record(consumer, entry, report.as_ref().filter(|_| !worker_failed)) {
        return match give_back(consumer, entry).await {
            Outcome::Released => Outcome::Returned,
            other => other,
        };
    }
    let Some(Report {
        outcome,
        completion,
    }) = report
    else {
        return Outcome::Abandoned;
    };
    match complete(consumer, entry, run.as_ref(), &completion).await {
        Some(LeaseState::Done) => outcome,
        state => state.map_or(Outcome::Abandoned, Outcome::from),
    }
}

/// Record for the circuit breaker how a step went; answer whether its entry is to be given back. Without a report the
/// worker failed.
fn record(consumer: &Consumer, entry: &Entry, report: Option<&Report>) -> bool {
    let breaker = &consumer.shared.breaker;
    let tenant = printable(entry.field("tenant"));
    let id = printable(entry.field("id"));
    // <task>.<run>.<step>...
    let mut parts = id.split('.');
    let (task, step) = (
        parts.next().unwrap_or(&id),
        parts.nth(1).unwrap_or_default(),
    );
    match report.map(|report| report.outcome) {
        None => {
            return breaker.record_failure(FailedStep {
                task,
                tenant: &tenant,
                step,
            })
        }
        Some(Outcome::Done | Outcome::Failed) => breaker.record_success(&tenant, step),
        Some(_) => breaker.record_neutral(),
    }
    false
}

/// Release the entry of a step that the end of this process has stopped: it resumes elsewhere at once, and a deploy costs
/// it no delivery. A process that stops because one of its own tasks broke may have been broken by the step, so there
/// the delivery is charged and another worker waits for the end of the lease.
async fn release_stopped(consumer: &Consumer, entry: &Entry, step: &StepRequested) -> Outcome {
    if consumer.shared.supervisor.failure().is_some() {
        return Outcome::Abandoned;
    }
    let outcome = give_back(consumer, entry).await;
    if matches!(outcome, Outcome::Released) {
        log_step(step, "released a step that did not end within the drain");
    }
    outcome
}

/// Log what happens to a step, with everything that names it.
pub(super) fn log_step(step: &StepRequested, what: &str) {
    tracing::info!(
        task = %step.task,
        run = step.run.get(),
        step = %step.step,
        round = step.round.get(),
        attempt = step.attempt.get(),
        tenant = %step.tenant,
        "{what}"
    );
}

/// Give the entry back at no cost. While Redis is unavailable it stays pending until its lease ends.
async fn give_back(consumer: &Consumer, entry: &Entry) -> Outcome {
    match consumer.group.release(std::slice::from_ref(entry)).await {
        Ok(states) => match states.first() {
            Some(state) => Outcome::from(*state),
            None => Outcome::Abandoned,
        },
        Err(error) => {
            tracing::warn!(%error, entry = %entry.id, "an entry stays pending until its lease ends");
            Outcome::Abandoned
        }
    }
}

/// Finish the entry, however long Redis is unavailable. `None` where Redis refuses it.
async fn complete(
    consumer: &Consumer,
    entry: &Entry,
    run: Option<&StepRun>,
    completion: &Completion,
) -> Option<LeaseState> {
    let mut backoff = Backoff::default();
    loop {
        match consumer.group.complete(entry, run, completion).await {
            Ok(state) => return Some(state),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "a finished step cannot be reported; trying again");
                backoff.wait().await;
            }
            Err(error) => {
                tracing::error!(%error, entry = %entry.id, "Redis refuses a completion; its entry stays pending");
                return None;
            }
        }
    }
}

fn in_flight(step: &StepRequested) -> String {
    in_flight_field(&step.task, step.run.get(), &step.step, step.round.get())
}

fn report(
    reporter: &Reporter<'_>,
    step: &StepRequested,
    result: StepResult,
) -> Result<Report, ContractError> {
    match result {
        StepResult::Success(output) => reporter.succeeded(step, output),
        StepResult::PermanentFailure(fault) => {
            tracing::info!(code = fault.code, "the step failed");
            reporter.failed(step, &fault)
        }
        StepResult::TransientFailure { fault, .. } => {
            tracing::warn!(code = fault.code, cause = %fault.message, "the step could not be run this time");
            reporter.retry(step, &fault, random_number())
        }
        StepResult::RunEnded => Ok(Report::run_ended(in_flight(step))),
        StepResult::PastDeadline => Ok(Report::past_deadline(in_flight(step))),
        StepResult::Stopped => Err(ContractError::schema("", "a stopped step has no report")),
    }
}
