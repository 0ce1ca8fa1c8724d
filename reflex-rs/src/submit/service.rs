//! The submission service and its stages.

use std::sync::Arc;
use std::time::Duration;

use contracts::events::{RefusalReason, Source, TaskId, TaskState};
use contracts::topology::Topology;
use service::Supervisor;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::confirm::store_and_confirm;
use super::detached::Detached;
use super::error::refused_outcome;
use super::{Durability, FinalOutcome, Record, SubmitError};
use crate::admission::{self, Admitted, Rules, Stamp, Submission};
use crate::blocking::run_sized;
use crate::caller::Caller;
use crate::kinds::Kinds;
use crate::lookup::{Lookup, TaskSummary};
use crate::outcome::Outcome;
use crate::quotas::{Quotas, TaskLimits};
use crate::store::{Replicated, StoreError, Stored};

/// How long a repeat waits for what the API knows of its task.
const API_TIMEOUT: Duration = Duration::from_millis(500);

/// What the API says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InApi {
    Known(TaskState),
    /// Postgres does not have it.
    Unknown,
    /// There is no API, or it does not answer.
    NotSaid,
}

impl InApi {
    fn state(self) -> Option<TaskState> {
        match self {
            Self::Known(state) => Some(state),
            Self::Unknown | Self::NotSaid => None,
        }
    }
}

/// What a submission must fulfil, and how it is treated if it does not.
#[derive(Debug, Clone, Copy)]
pub struct Requirements {
    pub durability: Durability,
    pub refusals: Refusals,
}

/// What happens to a submission that the policy refuses, or that cannot be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusals {
    /// The sender gets the refusal as an error; nothing is stored.
    Return,
    /// The sender does not act on an answer, so the refusal is stored as a rejected task, which an operator can see.
    Store,
}

/// A stored submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub task: TaskId,
    /// Whether the same submission was stored before.
    pub duplicate: bool,
    /// The task's state; absent for a duplicate of which neither the store nor the API can say it now.
    pub state: Option<TaskState>,
    /// Why it was stored as a rejected task; only with `Refusals::Store`.
    pub refused: Option<RefusalReason>,
    /// What holds of it now.
    pub durability: Durability,
}

impl Accepted {
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (self.duplicate, self.refused) {
            (true, _) => Outcome::Duplicate,
            (false, Some(reason)) => refused_outcome(reason),
            (false, None) => Outcome::Accepted,
        }
    }
}

/// A submission that has passed every stage before the store.
#[derive(Debug)]
pub struct Prepared {
    task: Arc<Admitted>,
    requirements: Requirements,
    /// How many open tasks its caller may have.
    limits: TaskLimits,
    source: Source,
}

/// The settings of the service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceConfig {
    /// What every submission over HTTP must fulfil.
    pub durability: Durability,
    /// How many replicas `replicated` without a number means.
    pub replicas: usize,
    /// How long a required durability is waited for.
    pub durability_wait: Duration,
}

/// Turns submissions into stored tasks.
pub struct Service {
    pub lookup: Lookup,
    pub rules: Arc<Rules>,
    pub kinds: Arc<Kinds>,
    pub topology: Arc<Topology>,
    pub quotas: Arc<Quotas>,
    pub config: ServiceConfig,
    /// Owns the tasks of submissions whose client has disconnected.
    pub supervisor: Supervisor,
    /// The submissions that run. Some outlive their request; a stop waits for them.
    pub running: TaskTracker,
}

impl Service {
    /// Takes a submission through all stages and records its outcome.
    ///
    /// If the caller of this function is dropped, the submission is still stored and recorded.
    pub async fn submit(
        self: &Arc<Self>,
        record: Record,
        caller: &Caller,
        submission: Submission,
        requirements: Requirements,
    ) -> Result<Accepted, SubmitError> {
        let (service, caller) = (Arc::clone(self), caller.clone());
        let run = async move {
            let prepared = service.prepare(&caller, &submission, requirements).await;
            let result = match prepared {
                Ok(prepared) => service.store(&prepared).await,
                Err(error) => Err(error),
            };
            record.finish(&final_outcome(&result));
            result
        };
        // If it panics, the dropped record reports it.
        let run = Detached::new(self.running.track_future(run), self.supervisor.clone());
        run.await.unwrap_or_else(|_| {
            let cause = "its handler panicked".to_owned();
            Err(SubmitError::Internal(cause))
        })
    }

    /// The stages before the store. Fails if the caller's quota does not allow it, the submission is invalid, or refused and `requirements` return refusals.
    pub async fn prepare(
        &self,
        caller: &Caller,
        submission: &Submission,
        requirements: Requirements,
    ) -> Result<Prepared, SubmitError> {
        let received = submission.received.as_ref().unwrap_or(&submission.body);
        self.quotas
            .submission(caller, received.len(), submission.source)
            .await?;
        let now_ms = self.lookup.store.now_ms()?;
        let stamp = Stamp::at(now_ms).map_err(|error| SubmitError::Internal(error.to_string()))?;
        let kinds = self.kinds.table();
        let kinds = kinds.as_deref();
        let admit = || {
            admission::admit(
                caller,
                submission,
                stamp,
                &self.rules,
                kinds,
                &self.topology,
            )
        };
        let task = run_sized(submission.body.len(), admit).await?;
        match &task.refusal {
            Some(refusal) if requirements.refusals == Refusals::Return => {
                Err(SubmitError::Refused(refusal.clone()))
            }
            _ => Ok(Prepared {
                task: Arc::new(task),
                requirements,
                limits: self.quotas.task_limits(caller),
                source: submission.source,
            }),
        }
    }

    /// Stores a prepared submission as durably as required. May be repeated after an error: the idempotency key makes sure
    /// that one task is stored.
    ///
    /// A repeat of a task that was lost before Postgres had it stores the task again, under its first id.
    pub async fn store(&self, prepared: &Prepared) -> Result<Accepted, SubmitError> {
        let (task, limits) = (&prepared.task, &prepared.limits);
        if limits.is_empty() {
            return self.store_counted(prepared).await;
        }
        let tenant = task.tenant.as_str();
        let key = task
            .has_key()
            .then(|| (tenant, task.idempotency_key.as_str()));
        let source = Some(prepared.source);
        self.quotas
            .open_task(&task.task, key, limits, source)
            .await?;
        let result = self.store_counted(prepared).await;
        let stored = match &result {
            Ok(accepted) => accepted.task == task.task,
            // Nobody knows; if it was not, its record is pruned.
            Err(SubmitError::Unconfirmed { .. } | SubmitError::Store(StoreError::Unknown(_))) => {
                true
            }
            Err(_) => false,
        };
        if !stored {
            self.quotas.close_task(&task.task, limits).await;
        }
        result
    }

    /// Stores a submission whose task counts as open.
    async fn store_counted(&self, prepared: &Prepared) -> Result<Accepted, SubmitError> {
        let task = &prepared.task;
        let required = prepared.requirements.durability;
        let (stored, durability) = self.store_as_required(task, required).await?;
        let refused = task.refusal.as_ref().map(|refusal| refusal.reason);
        let accepted = |task, duplicate, state| {
            Ok(Accepted {
                task,
                duplicate,
                state: match state {
                    // The orchestrator has not handled the refusal yet.
                    Some(TaskState::Accepted) if refused.is_some() => Some(TaskState::Rejected),
                    state => state,
                },
                refused,
                durability,
            })
        };
        match stored {
            Stored::Accepted(id) => accepted(id, false, Some(TaskState::Accepted)),
            Stored::Duplicate(id, None) => {
                let known = self.ask_api(task, &id).await;
                accepted(id, true, known.state())
            }
            Stored::Duplicate(id, state) => accepted(id, true, state),
            Stored::Lost(id, None) => match self.ask_api(task, &id).await {
                InApi::Unknown => self.revive(task, &id, required, durability).await,
                known => accepted(id, true, known.state()),
            },
            // Its status says that Postgres does not have it.
            Stored::Lost(id, Some(_)) => self.revive(task, &id, required, durability).await,
            Stored::Conflict(id) => Err(SubmitError::IdempotencyKeyReused(id)),
            Stored::Overloaded => Err(SubmitError::Overloaded),
        }
    }

    /// Stores a lost task again under its first id.
    async fn revive(
        &self,
        task: &Admitted,
        first: &TaskId,
        required: Durability,
        durability: Durability,
    ) -> Result<Accepted, SubmitError> {
        let again = task
            .with_task(first)
            .map_err(|error| SubmitError::Internal(error.to_string()))?;
        let (stored, _) = self.store_as_required(&Arc::new(again), required).await?;
        let state = match stored {
            Stored::Accepted(_) => {
                tracing::warn!(
                    task = first.as_str(),
                    tenant = task.tenant.as_str(),
                    "a task was lost before it was stored in Postgres; its repeat has submitted it again"
                );
                Some(TaskState::Accepted)
            }
            // Another repeat was faster, or the task's status has come.
            Stored::Duplicate(_, state) | Stored::Lost(_, state) => state,
            Stored::Conflict(id) => return Err(SubmitError::IdempotencyKeyReused(id)),
            Stored::Overloaded => return Err(SubmitError::Overloaded),
        };
        Ok(Accepted {
            task: first.clone(),
            duplicate: true,
            state,
            refused: task.refusal.as_ref().map(|refusal| refusal.reason),
            durability,
        })
    }

    /// Asks the API for a task of which the store has no status.
    async fn ask_api(&self, submitted: &Admitted, task: &TaskId) -> InApi {
        let Some(api) = &self.lookup.api else {
            return InApi::NotSaid;
        };
        let (path, caller) = (
            format!("/v1/tasks/{task}"),
            Caller::new(submitted.tenant.clone()),
        );
        let answer = api.read::<TaskSummary>(&path, &caller);
        match tokio::time::timeout(API_TIMEOUT, answer).await {
            Ok(Ok(Some(known))) => InApi::Known(known.state),
            Ok(Ok(None)) => InApi::Unknown,
            Ok(Err(_)) | Err(_) => InApi::NotSaid,
        }
    }

    /// Stores a task once, as durably as required. Returns what the store answered and the durability that is reached.
    async fn store_as_required(
        &self,
        task: &Arc<Admitted>,
        required: Durability,
    ) -> Result<(Stored, Durability), SubmitError> {
        let result = if required.stored {
            self.store_persisted(task, required).await
        } else {
            self.store_in_redis(task, required).await
        };
        match result {
            // The command was sent and not answered.
            Err(SubmitError::Store(StoreError::Unknown(_))) => {
                Err(unconfirmed(task.task.clone(), required))
            }
            result => result,
        }
    }

    async fn store_persisted(
        &self,
        task: &Arc<Admitted>,
        required: Durability,
    ) -> Result<(Stored, Durability), SubmitError> {
        let deadline = Instant::now() + self.config.durability_wait;
        match store_and_confirm(&self.lookup, task, deadline).await? {
            (Stored::Accepted(id) | Stored::Duplicate(id, _), false) => {
                Err(unconfirmed(id, required))
            }
            (stored, _) => Ok((stored, required)),
        }
    }

    async fn store_in_redis(
        &self,
        task: &Arc<Admitted>,
        required: Durability,
    ) -> Result<(Stored, Durability), SubmitError> {
        let store = &self.lookup.store;
        let server = store.server_info()?;
        let synced = server.synced == Some(true);
        if required.synced && !synced {
            return Err(SubmitError::NotDurable(
                "Redis does not sync before it answers (appendonly yes, appendfsync always), or does not say so",
            ));
        }
        let reached = Durability { synced, ..required };
        if required.replicas == 0 {
            return Ok((store.admit(task).await?, reached));
        }
        if server
            .replicas
            .is_some_and(|known| known < required.replicas)
        {
            return Err(SubmitError::NotDurable("Redis has too few replicas"));
        }
        match store.admit_replicated(task, required.replicas).await? {
            Replicated::Unconfirmed(Stored::Accepted(id) | Stored::Duplicate(id, _)) => {
                Err(unconfirmed(id, required))
            }
            // In an unconfirmed answer that is left, nothing was stored, so there is nothing to confirm.
            Replicated::Confirmed(stored) | Replicated::Unconfirmed(stored) => {
                Ok((stored, reached))
            }
            Replicated::NotAttempted => Err(SubmitError::NotDurable(
                "the replicas of Redis do not keep up",
            )),
        }
    }
}

fn unconfirmed(task: TaskId, required: Durability) -> SubmitError {
    SubmitError::Unconfirmed { task, required }
}

/// How a submission ended, for the record.
fn final_outcome(result: &Result<Accepted, SubmitError>) -> FinalOutcome<'_> {
    match result {
        Ok(accepted) => FinalOutcome {
            outcome: accepted.outcome(),
            task: Some(&accepted.task),
            cause: None,
        },
        Err(error) => error.into(),
    }
}
