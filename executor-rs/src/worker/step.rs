//! One delivery, from its lease to its outcome.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use contracts::events::{Object, StepRequested};
use contracts::ContractError;
use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::watch;
use tracing::Instrument;

use super::lane::Lane;
use crate::policy::ending::{clean, read, About, Fault};
use crate::policy::{input, output};
use crate::sandbox::SandboxError;
use crate::sink::complete::complete;
use crate::sink::operations::{Ending, Outcome};
use crate::source::leases::Held;
use crate::source::pause::chance;
use crate::source::{Entry, Marker, Standing};

/// How much longer than the step's own limit a lease is kept: sandbox and completion take time too.
const GRACE: Duration = Duration::from_secs(60);

/// How long a lease is kept at most.
pub fn longest(timeout_s: Option<u64>) -> Duration {
    Duration::from_secs(timeout_s.unwrap_or(0)) + GRACE
}

/// What running a step came to.
enum Ran {
    Output(Object),
    Permanent(Fault),
    /// A fault of this machine or this program.
    Passing(Fault),
    /// The lease is lost, the task cancelled or the process ends: nothing is written.
    Stopped,
}

/// Runs the entry and finishes it; counts its outcome.
pub async fn run(lane: &Lane, entry: Entry, held: Held) {
    let span = tracing::info_span!(
        "entry",
        message = %clean(entry.field("id")),
        tenant = %clean(entry.field("tenant")),
        trace = %clean(entry.field("traceparent")).chars().skip(3).take(32).collect::<String>(),
    );
    let shared = &lane.shared;
    shared.metrics.running(1);
    let outcome = work(lane, &entry, &held).instrument(span).await;
    shared.metrics.running(-1);
    shared.metrics.ended(outcome, 1);
}

async fn work(lane: &Lane, entry: &Entry, held: &Held) -> Outcome {
    let began = Instant::now();
    let topic = &*lane.source.topic;
    let about = || About {
        entry,
        topic,
        keys: &lane.source.keys,
        worker: &lane.source.consumer,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let marker = Marker::of(entry, &lane.source.keys);
    let mut broke = false;
    let ending = match read(entry, topic) {
        Err(refused) => {
            tracing::warn!(reason = refused.reason.as_str(), fault = %refused, "a message is no step for this arm and is given up on");
            about().dead(refused.reason, &refused.message)
        }
        Ok(step) => match caught(perform(lane, &step, held)).await {
            Ran::Stopped => match (held.lost(), &marker) {
                (Some(Standing::Cancelled), Some(marker)) => {
                    Ok(Ending::cancelled(marker.live.clone()))
                }
                (lost, _) => {
                    lane.shared.fuse.undecided();
                    return lost.map_or(Outcome::Abandoned, Outcome::of);
                }
            },
            ran => {
                broke = matches!(ran, Ran::Passing(_));
                conclude(&about(), &step, ran)
            }
        },
    };
    let ending = match ending {
        Ok(ending) => Some(ending),
        Err(error) => {
            tracing::error!(%error, "an ending cannot be written; the entry stays pending");
            None
        }
    };
    if blown(lane, entry, ending.as_ref().filter(|_| !broke)) {
        return give_back(lane, entry).await;
    }
    match ending {
        Some(ending) => complete(&lane.source, entry, marker.as_ref(), &ending).await,
        None => Outcome::Abandoned,
    }
}

/// Tells the fuse how a step went; whether its entry is to be given back because of it. Without an ending it broke.
fn blown(lane: &Lane, entry: &Entry, ending: Option<&Ending>) -> bool {
    let (fuse, tenant) = (&lane.shared.fuse, clean(entry.field("tenant")));
    match ending.map(|ending| ending.outcome) {
        None => {
            let id = clean(entry.field("id"));
            fuse.broke(id.split('.').next().unwrap_or(&id), &tenant)
        }
        Some(Outcome::Done | Outcome::Failed) => {
            fuse.well(&tenant);
            false
        }
        Some(_) => {
            fuse.undecided();
            false
        }
    }
}

/// Where Redis is away the entry stays pending until its lease ends.
async fn give_back(lane: &Lane, entry: &Entry) -> Outcome {
    match lane.source.release(std::slice::from_ref(entry)).await {
        Ok(standings) => match standings.first() {
            Some(Standing::Released) => Outcome::Held,
            other => other.map_or(Outcome::Abandoned, |other| Outcome::of(*other)),
        },
        Err(error) => {
            tracing::warn!(%error, entry = %entry.id, "an entry stays pending");
            Outcome::Abandoned
        }
    }
}

/// A panic is a fault of this program, which the next step or the next attempt need not meet.
async fn caught(running: impl Future<Output = Ran>) -> Ran {
    AssertUnwindSafe(running)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Ran::Passing(Fault {
                code: "internal",
                message: "the executor broke on this step; its log says where".to_owned(),
            })
        })
}

fn conclude(about: &About<'_>, step: &StepRequested, ran: Ran) -> Result<Ending, ContractError> {
    match ran {
        Ran::Output(output) => about.succeeded(step, output),
        Ran::Permanent(fault) => {
            tracing::info!(code = fault.code, "the step failed");
            about.failed(step, &fault)
        }
        Ran::Passing(fault) => {
            tracing::warn!(code = fault.code, cause = %fault.message, "the step could not be run this time");
            about.passing(step, &fault, chance())
        }
        Ran::Stopped => Err(ContractError::schema("", "a stopped step has no ending")),
    }
}

async fn perform(lane: &Lane, step: &StepRequested, held: &Held) -> Ran {
    let topic_s = lane.source.topic.timeout_s.unwrap_or(u64::MAX);
    let limit_s = step.timeout_s.get().unsigned_abs().min(topic_s);
    let checked = match input::read(step.input.clone(), limit_s) {
        Ok(checked) => checked,
        Err(error) => {
            return Ran::Permanent(Fault {
                code: "invalid_input",
                message: error.to_string(),
            })
        }
    };
    let language = checked.job.language;
    let began = Instant::now();
    tracing::info!(
        task = %step.task,
        run = step.run.get(),
        step = %step.step,
        round = step.round.get(),
        attempt = step.attempt.get(),
        tenant = %step.tenant,
        "a step begins"
    );
    match run_sandboxed(lane, &checked, held.stop.clone()).await {
        Ok(_) if *held.stop.borrow() => Ran::Stopped,
        Ok(output) => {
            let seconds = began.elapsed().as_secs_f64();
            lane.shared.metrics.took(language, seconds);
            tracing::info!(task = %step.task, step = %step.step, outcome = ?output.outcome, seconds, "ran a step");
            match serde_json::to_value(&output) {
                Ok(Value::Object(object)) => Ran::Output(object),
                other => Ran::Passing(Fault {
                    code: "internal",
                    message: format!("the output is no object: {:?}", other.err()),
                }),
            }
        }
        Err(SandboxError::Refused(message)) => Ran::Passing(Fault {
            code: "sandbox_unavailable",
            message,
        }),
        Err(error @ SandboxError::Internal { .. }) => Ran::Passing(Fault {
            code: "internal",
            message: error.to_string(),
        }),
    }
}

async fn run_sandboxed(
    lane: &Lane,
    checked: &input::StepInput,
    stop: watch::Receiver<bool>,
) -> Result<output::StepOutput, SandboxError> {
    let finished = lane.sandbox.run(&checked.job, stop).await?;
    Ok(output::of(
        finished,
        checked.job.language,
        checked.parse_json,
    ))
}

#[cfg(test)]
mod tests {
    use super::{caught, Ran};

    #[tokio::test]
    #[allow(clippy::panic)] // what is caught here
    async fn a_panic_is_a_fault_that_passes() {
        let ran = caught(async { panic!("a bad deploy") }).await;
        assert!(matches!(ran, Ran::Passing(fault) if fault.code == "internal"));
        assert!(matches!(caught(async { Ran::Stopped }).await, Ran::Stopped));
    }
}
