//! Where tasks are stored: one trait, with a Redis version that runs in production and an in-memory version with the same
//! behaviour for tests without a server. One test suite (`tests/store.rs`) runs against both.

mod event_id;
mod memory;
mod redis;
mod watch;

pub use self::event_id::EventId;
pub use self::memory::{Fault, MemoryStore};
pub use self::redis::{RedisStore, RESPONSE_TIMEOUT};
pub use self::watch::{Item, Watch, Watchers};
pub use bus::{ServerInfo, StoreError};

use std::sync::Arc;

use async_trait::async_trait;
use contracts::events::{
    DeadDrop, List, TaskCancel, TaskEvent, TaskId, TaskRedrive, TaskState, TaskStatus, WaitingStep,
};
use contracts::ContractError;

use crate::admission::{Admitted, DeadLetterMessage};

/// What the store answered to an admission. The task is the one that the idempotency key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    Accepted(TaskId),
    /// The same submission was stored before. The state is absent if the store has no status of the task.
    Duplicate(TaskId, Option<TaskState>),
    /// The same submission was stored before, but its message is gone and its status does not say that Postgres has it.
    /// Storing it again under the task's own id revives it. The state is absent if the store has no status of the task.
    Lost(TaskId, Option<TaskState>),
    /// The idempotency key belongs to another submission.
    Conflict(TaskId),
    /// More tasks are queued than the topology allows; nothing was stored.
    Overloaded,
}

/// What became of an admission that replicas must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replicated {
    /// Enough replicas have it.
    Confirmed(Stored),
    /// The store has it. Whether enough replicas have it is not known.
    Unconfirmed(Stored),
    /// Nothing was written, because too few replicas keep up.
    NotAttempted,
}

/// What the store answered to a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The request is on its way to the orchestrator. The state is absent if the store has no status of it.
    Accepted(Option<TaskState>),
    /// The task had ended before; what was left of its run is stopped.
    Ended(TaskState),
    OtherTenant,
}

/// What the store answered to a redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redriven {
    Accepted,
    /// The run cannot be followed by another; the store's state and newest run say why.
    Unchanged {
        state: TaskState,
        run: i64,
    },
    OtherTenant,
}

/// Whether a task in this state has ended.
#[must_use]
pub fn is_terminal(state: TaskState) -> bool {
    !matches!(state, TaskState::Accepted | TaskState::Running)
}

/// Why a status cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the stored status is not a task.status.v1: {0}")]
    Contract(#[from] ContractError),
}

/// Stores tasks and commands about them, and reads what it knows of tasks.
///
/// Methods do not compare tenants unless they say so: reads return any tenant's task, and the caller compares.
#[async_trait]
pub trait TaskStore: Send + Sync {
    /// Checks that the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Returns what is known of the server's durability. Does not wait: fails at once if the store is unavailable.
    fn server_info(&self) -> Result<ServerInfo, StoreError>;

    /// Returns the store's time in ms since 1970, which decides what depends on a time. Does not wait. Fails only before the
    /// store was reached for the first time.
    fn now_ms(&self) -> Result<u64, StoreError>;

    /// Waits until the store is known to be unavailable, also while nothing else is asked of it.
    async fn until_unavailable(&self);

    /// Stores a task with its status and its idempotency key, all or nothing. After an error it may be stored; repeating the
    /// call with the same idempotency key is safe.
    async fn admit(&self, task: &Arc<Admitted>) -> Result<Stored, StoreError>;

    /// Like `admit`, and waits until `replicas` replicas have the task too.
    async fn admit_replicated(
        &self,
        task: &Arc<Admitted>,
        replicas: usize,
    ) -> Result<Replicated, StoreError>;

    /// Returns a task's status, or `None` if the store does not know the task.
    async fn status(&self, task: &TaskId) -> Result<Option<TaskStatus>, StatusError>;

    /// Whether Postgres has the task, by its status; `None` without a status.
    async fn is_persisted(&self, task: &TaskId) -> Result<Option<bool>, StoreError>;

    /// Returns the open steps that no worker can take now, with how long each has waited; `None` if there are none.
    async fn waiting_steps(
        &self,
        status: &TaskStatus,
    ) -> Result<Option<List<WaitingStep, 200>>, StoreError>;

    /// Returns the task's events after `after` that the store still holds, in order.
    async fn history(
        &self,
        task: &TaskId,
        after: Option<EventId>,
    ) -> Result<Vec<TaskEvent>, StoreError>;

    /// Subscribes to a task's events. Returns once no event that is published from now on can be missed.
    async fn watch(&self, task: &TaskId) -> Result<Watch, StoreError>;

    /// Stops what runs of a task and asks the orchestrator to cancel it. `run`: the newest run that the caller knows. Refuses
    /// another tenant's task. After an error the request may have been written; repeating the call is safe.
    async fn cancel(
        &self,
        message: &TaskCancel,
        run: i64,
        traceparent: &str,
    ) -> Result<Cancelled, StoreError>;

    /// Requests the run after the one that the message names. Refuses another tenant's task. After an error it may be
    /// requested; repeating the call is safe.
    async fn redrive(
        &self,
        message: &TaskRedrive,
        traceparent: &str,
    ) -> Result<Redriven, StoreError>;

    /// Publishes a dead letter. After an error it may be published; repeating the call may publish it twice.
    async fn publish_dead_letter(&self, message: &DeadLetterMessage) -> Result<(), StoreError>;

    /// Requests that a dead letter is marked as dropped. Repeating the call is safe.
    async fn drop_dead_letter(
        &self,
        message: &DeadDrop,
        traceparent: &str,
    ) -> Result<(), StoreError>;
}
