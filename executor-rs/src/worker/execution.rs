//! Runs one step's code, for as long as its lease, its run and its deadline allow.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bus::run_state::RunState;
use bus::{Backoff, Lease, StepRun};
use contracts::events::{Object, StepRequested};
use contracts::ids::timestamp_ms;
use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::consumer::Consumer;
use super::delivery::log_step;
use crate::isolation;
use crate::sandbox::SandboxError;
use crate::step::input::{self, StepInput};
use crate::step::report::Fault;
use crate::step::run::StepRunner;

/// What running a step led to.
#[derive(Debug)]
pub(super) enum StepResult {
    Success(Object),
    PermanentFailure(Fault),
    /// A fault of this machine or this program. `of_worker`: others would fail here, too; the circuit breaker counts it.
    TransientFailure {
        fault: Fault,
        of_worker: bool,
    },
    /// The lease is lost or the process stops: nothing is written.
    Stopped,
    /// The run has ended: the step was not started.
    RunEnded,
    /// The task's deadline has passed: the step was not started or was stopped. The orchestrator ends the task.
    PastDeadline,
}

/// Run a step to its result. A panic is a fault of this program; the next step or the next attempt need not meet it.
pub(super) async fn execute(
    consumer: &Consumer,
    run: Option<&StepRun>,
    step: &StepRequested,
    lease: &Lease,
) -> StepResult {
    let deadline = match start_allowed(consumer, run, step, lease).await {
        Ok(deadline) => deadline,
        Err(refused) => return refused,
    };
    let result = catch_panic(perform(consumer, step, lease, deadline)).await;
    unless_late(result, deadline)
}

/// What becomes of a result: after the deadline neither a retry nor a dead letter may follow a transient failure.
fn unless_late(result: StepResult, deadline: Option<Instant>) -> StepResult {
    match result {
        StepResult::TransientFailure { .. } if deadline.is_some_and(|at| Instant::now() >= at) => {
            StepResult::PastDeadline
        }
        result => result,
    }
}

/// Wait until Redis says whether the step may start; answer its deadline on this process's monotonic clock.
async fn start_allowed(
    consumer: &Consumer,
    run: Option<&StepRun>,
    step: &StepRequested,
    lease: &Lease,
) -> Result<Option<Instant>, StepResult> {
    let Some(run) = run else { return Ok(None) };
    let deadline_ms = step
        .deadline_at
        .as_ref()
        .and_then(|at| timestamp_ms(at.as_str()));
    let mut backoff = Backoff::default();
    loop {
        let state = match RunState::of(&consumer.shared.client, run).await {
            Ok(state) => state,
            Err(error) => {
                if let Err(refusal) = error.check_transient("say whether a run has ended") {
                    consumer.shared.supervisor.report("step", &refusal);
                    return Err(StepResult::Stopped);
                }
                tracing::warn!(%error, "cannot ask whether a step may start; trying again");
                tokio::select! {
                    () = backoff.wait() => continue,
                    () = lease.until_revoked() => return Err(StepResult::Stopped),
                }
            }
        };
        if state.ended {
            return Err(StepResult::RunEnded);
        }
        let Some(deadline_ms) = deadline_ms else {
            return Ok(None);
        };
        let left = Duration::from_millis(deadline_ms.saturating_sub(state.now_ms));
        if left.is_zero() {
            return Err(StepResult::PastDeadline);
        }
        return Ok(Instant::now().checked_add(left));
    }
}

async fn perform(
    consumer: &Consumer,
    step: &StepRequested,
    lease: &Lease,
    deadline: Option<Instant>,
) -> StepResult {
    let topic_s = consumer.topic.timeout_s.unwrap_or(u64::MAX);
    let max_s = step.timeout_s.get().unsigned_abs().min(topic_s);
    let checked = match input::parse(step.input.clone(), max_s) {
        Ok(checked) => checked,
        Err(error) => {
            return StepResult::PermanentFailure(Fault {
                code: "invalid_input",
                message: error.to_string(),
            })
        }
    };
    log_step(step, "started a step");
    run_sandboxed(consumer, step, &checked, lease, deadline).await
}

/// The sandbox is always waited for: the result is not there before its processes are gone.
async fn run_sandboxed(
    consumer: &Consumer,
    step: &StepRequested,
    checked: &StepInput,
    lease: &Lease,
    deadline: Option<Instant>,
) -> StepResult {
    let started = Instant::now();
    let (interrupt, interrupted) = watch::channel(false);
    let running = consumer.runner.run(checked, interrupted);
    tokio::pin!(running);
    let (output, stopped) = tokio::select! {
        output = &mut running => (output, None),
        () = lease.until_revoked() => {
            interrupt.send_replace(true);
            (running.await, Some(StepResult::Stopped))
        }
        () = sleep_until(deadline) => {
            tracing::info!(task = %step.task, step = %step.step, "the task's deadline has passed; its step is stopped");
            interrupt.send_replace(true);
            (running.await, Some(StepResult::PastDeadline))
        }
    };
    if let Some(stopped) = stopped {
        // Also where the sandbox failed: being stopped is why.
        return stopped;
    }
    match output {
        Ok(output) => {
            let seconds = started.elapsed().as_secs_f64();
            consumer.shared.metrics.observe_step(checked.kind, seconds);
            tracing::info!(task = %step.task, step = %step.step, outcome = ?output.outcome, seconds, "ran a step");
            match serde_json::to_value(&output) {
                Ok(Value::Object(object)) => StepResult::Success(object),
                other => StepResult::TransientFailure {
                    fault: internal(format!("the output is not an object: {:?}", other.err())),
                    of_worker: true,
                },
            }
        }
        Err(error) => StepResult::TransientFailure {
            of_worker: is_broken(&consumer.runner, &error).await,
            fault: match error {
                SandboxError::Refused(message) => Fault {
                    code: "sandbox_unavailable",
                    message,
                },
                SandboxError::Internal { .. } => internal(error.to_string()),
            },
        },
    }
}

/// Whether the sandbox fails on a step that does nothing, too. What a step's own content brings about must not stop this
/// worker for others.
async fn is_broken(runner: &StepRunner, error: &SandboxError) -> bool {
    match isolation::probe(runner).await {
        Ok(_) => {
            tracing::warn!(%error, "the sandbox failed on a step, but works for another");
            false
        }
        Err(_) => true,
    }
}

fn internal(message: String) -> Fault {
    Fault {
        code: "internal",
        message,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn catch_panic(running: impl Future<Output = StepResult>) -> StepResult {
    AssertUnwindSafe(running)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| StepResult::TransientFailure {
            fault: internal("the executor panicked on this step; its log says where".to_owned()),
            of_worker: true,
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{catch_panic, internal, unless_late, Fault, StepResult};

    #[tokio::test]
    #[allow(clippy::panic)] // what is caught here
    async fn a_panic_is_a_transient_failure() {
        let result = catch_panic(async { panic!("a bad deploy") }).await;
        assert!(
            matches!(result, StepResult::TransientFailure { fault, of_worker: true } if fault.code == "internal")
        );
        let result = catch_panic(async { StepResult::Stopped }).await;
        assert!(matches!(result, StepResult::Stopped));
    }

    #[tokio::test]
    async fn no_retry_follows_a_failure_after_the_deadline() {
        let failure = || StepResult::TransientFailure {
            fault: internal("odd".to_owned()),
            of_worker: true,
        };
        let now = Instant::now();
        assert!(matches!(
            unless_late(failure(), Some(now)),
            StepResult::PastDeadline
        ));
        for deadline in [None, Some(now + Duration::from_secs(3600))] {
            let result = unless_late(failure(), deadline);
            assert!(matches!(result, StepResult::TransientFailure { .. }));
        }
        // The orchestrator decides about a result that another attempt would not change.
        let fault = Fault {
            code: "invalid_input",
            message: String::new(),
        };
        let result = unless_late(StepResult::PermanentFailure(fault), Some(now));
        assert!(matches!(result, StepResult::PermanentFailure(_)));
        let result = unless_late(StepResult::Stopped, Some(now));
        assert!(matches!(result, StepResult::Stopped));
    }
}
