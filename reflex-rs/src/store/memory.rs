//! The task store in memory: the same behaviour as in Redis, for tests without a server.
//!
//! Nothing consumes its tasks, and it has no workers: no step ever counts as waiting.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use contracts::events::{
    DeadDrop, List, TaskCancel, TaskEvent, TaskId, TaskRedrive, TaskState, TaskStatus, Tenant,
    WaitingStep,
};
use contracts::topology::Topology;
use redis::RedisError;
use serde_json::json;
use tokio::sync::watch;

use super::{
    is_terminal, Cancelled, EventId, Redriven, Replicated, ServerInfo, StatusError, StoreError,
    Stored, TaskStore, Watch, Watchers,
};
use crate::admission::{Admitted, DeadLetterMessage};

/// Keeps everything in this process.
pub struct MemoryStore {
    topology: Arc<Topology>,
    watchers: Arc<Watchers>,
    state: Mutex<State>,
    /// Whether calls that store something are held back, as by a server that hangs.
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    info: ServerInfo,
    /// How far its clock is ahead of this machine's, in ms.
    ahead_ms: i64,
    /// What was stored first under a tenant's idempotency key: the fingerprint and the task.
    idempotency: HashMap<(Tenant, String), (String, TaskId)>,
    tasks: Vec<Admitted>,
    statuses: HashMap<TaskId, TaskStatus>,
    history: Vec<TaskEvent>,
    dead_letters: Vec<DeadLetterMessage>,
    dropped: Vec<DeadDrop>,
}

/// How the store misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every call fails, and nothing is stored.
    Unavailable,
    /// Tasks are stored, but the answer is lost.
    AnswersLost,
}

impl MemoryStore {
    #[must_use]
    pub fn new(topology: Arc<Topology>) -> Self {
        Self {
            topology,
            watchers: Arc::default(),
            state: Mutex::default(),
            held: watch::Sender::new(false),
        }
    }

    /// Makes the store misbehave, or ends that.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// Holds back every admission until it is called with `false`.
    pub fn hold_admissions(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// How many admissions are held back now.
    #[must_use]
    pub fn held_admissions(&self) -> usize {
        self.held.receiver_count()
    }

    pub fn set_server_info(&self, info: ServerInfo) {
        self.lock().info = info;
    }

    /// Sets its clock this far ahead of this machine's.
    pub fn set_clock_ahead(&self, ms: i64) {
        self.lock().ahead_ms = ms;
    }

    /// Replaces a task's status, as the orchestrator does.
    pub fn set_status(&self, status: TaskStatus) {
        self.lock().statuses.insert(status.task.clone(), status);
    }

    /// Publishes an event, as the orchestrator does.
    pub fn publish(&self, event: TaskEvent) {
        let task = event.task.clone();
        self.lock().history.push(event.clone());
        self.watchers.send(task.as_str(), || Some(event));
    }

    /// Loses the messages of all stored tasks, as Redis does when their stream is deleted; with their statuses if `all`.
    pub fn lose_messages(&self, all: bool) {
        let mut state = self.lock();
        state.tasks.clear();
        if all {
            state.statuses.clear();
        }
    }

    /// Returns the stored tasks, in order.
    #[must_use]
    pub fn tasks(&self) -> Vec<Admitted> {
        self.lock().tasks.clone()
    }

    /// Returns the published dead letters, in order.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetterMessage> {
        self.lock().dead_letters.clone()
    }

    /// Returns the requests to drop a dead letter, in order.
    #[must_use]
    pub fn dropped(&self) -> Vec<DeadDrop> {
        self.lock().dropped.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state, or fails as a store that is unavailable.
    fn available(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.lock();
        match state.fault {
            Some(Fault::Unavailable) => Err(StoreError::unavailable("the store is switched off")),
            Some(Fault::AnswersLost) | None => Ok(state),
        }
    }

    fn store(&self, task: &Admitted) -> Result<Stored, StoreError> {
        let mut state = self.available()?;
        let key = (task.tenant.clone(), task.idempotency_key.clone());
        if let Some((fingerprint, first)) = state.idempotency.get(&key) {
            if *fingerprint != task.fingerprint {
                return Ok(Stored::Conflict(first.clone()));
            }
            let status = state.statuses.get(first);
            let found = status.map(|status| status.state);
            let pending = status.is_none_or(|one| !one.stored && one.state == TaskState::Accepted);
            let is_lost = pending && state.tasks.iter().all(|one| one.task != *first);
            if !is_lost {
                return Ok(Stored::Duplicate(first.clone(), found));
            }
            if *first != task.task {
                return Ok(Stored::Lost(first.clone(), found));
            }
        }
        let high_water = self
            .topology
            .topics
            .get("tasks")
            .map_or(0, |topic| topic.high_water);
        let queued = state
            .tasks
            .iter()
            .filter(|one| one.lane == task.lane && one.priority == task.priority)
            .count() as u64;
        if high_water > 0 && queued >= high_water {
            return Ok(Stored::Overloaded);
        }
        let entry = (task.fingerprint.clone(), task.task.clone());
        state.idempotency.insert(key, entry);
        if let Some(status) = first_status(task) {
            state.statuses.insert(task.task.clone(), status);
        }
        state.tasks.push(task.clone());
        Ok(Stored::Accepted(task.task.clone()))
    }
}

/// The status of a task that was just accepted. It is always valid, so it is never `None`.
fn first_status(task: &Admitted) -> Option<TaskStatus> {
    let mut status = json!({
        "task": task.task.as_str(),
        "tenant": task.tenant.as_str(),
        "state": "accepted",
        "run": 1,
        "version": 0,
        "stored": false,
        "created_at": task.created_at,
    });
    if let Some(kind) = &task.kind {
        status["kind"] = json!(kind);
    }
    serde_json::from_value(status).ok()
}

#[async_trait]
impl TaskStore for MemoryStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.available().map(|_| ())
    }

    fn server_info(&self) -> Result<ServerInfo, StoreError> {
        self.available().map(|state| state.info)
    }

    fn now_ms(&self) -> Result<u64, StoreError> {
        Ok(contracts::ids::now_ms().saturating_add_signed(self.lock().ahead_ms))
    }

    async fn until_unavailable(&self) {
        // Every call shows at once whether this store is available, so nothing has to be watched.
        std::future::pending::<()>().await;
    }

    async fn admit(&self, task: &Arc<Admitted>) -> Result<Stored, StoreError> {
        // The sender lives as long as this store, so this ends only when admissions are let through.
        let _ = self.held.subscribe().wait_for(|held| !*held).await;
        let stored = self.store(task)?;
        if self.lock().fault == Some(Fault::AnswersLost) {
            let timeout = io::Error::from(io::ErrorKind::TimedOut);
            return Err(RedisError::from(timeout).into());
        }
        Ok(stored)
    }

    async fn admit_replicated(
        &self,
        task: &Arc<Admitted>,
        replicas: usize,
    ) -> Result<Replicated, StoreError> {
        if self.server_info()?.replicas.unwrap_or(0) < replicas {
            return Ok(Replicated::NotAttempted);
        }
        self.admit(task).await.map(Replicated::Confirmed)
    }

    async fn status(&self, task: &TaskId) -> Result<Option<TaskStatus>, StatusError> {
        Ok(self.available()?.statuses.get(task).cloned())
    }

    async fn is_persisted(&self, task: &TaskId) -> Result<Option<bool>, StoreError> {
        let state = self.available()?;
        Ok(state.statuses.get(task).map(|status| status.stored))
    }

    async fn waiting_steps(
        &self,
        _status: &TaskStatus,
    ) -> Result<Option<List<WaitingStep, 200>>, StoreError> {
        self.available().map(|_| None)
    }

    async fn history(
        &self,
        task: &TaskId,
        after: Option<EventId>,
    ) -> Result<Vec<TaskEvent>, StoreError> {
        let state = self.available()?;
        let mut events: Vec<TaskEvent> = state
            .history
            .iter()
            .filter(|event| event.task == *task)
            .filter(|event| after.is_none_or(|after| EventId::of(event) > after))
            .cloned()
            .collect();
        events.sort_by_key(EventId::of);
        events.dedup_by_key(|event| EventId::of(event));
        Ok(events)
    }

    async fn watch(&self, task: &TaskId) -> Result<Watch, StoreError> {
        drop(self.available()?);
        Ok(self.watchers.subscribe(task))
    }

    async fn cancel(
        &self,
        message: &TaskCancel,
        _run: i64,
        _traceparent: &str,
    ) -> Result<Cancelled, StoreError> {
        let state = self.available()?;
        Ok(match state.statuses.get(&message.task) {
            Some(status) if status.tenant != message.tenant => Cancelled::OtherTenant,
            Some(status) if is_terminal(status.state) => Cancelled::Ended(status.state),
            status => Cancelled::Accepted(status.map(|status| status.state)),
        })
    }

    async fn redrive(
        &self,
        message: &TaskRedrive,
        _traceparent: &str,
    ) -> Result<Redriven, StoreError> {
        let state = self.available()?;
        let Some(status) = state.statuses.get(&message.task) else {
            return Ok(Redriven::Accepted);
        };
        let retryable = matches!(status.state, TaskState::Failed | TaskState::Expired);
        Ok(if status.tenant != message.tenant {
            Redriven::OtherTenant
        } else if retryable && status.run.get() == message.run.get() {
            Redriven::Accepted
        } else {
            Redriven::Unchanged {
                state: status.state,
                run: status.run.get(),
            }
        })
    }

    async fn publish_dead_letter(&self, message: &DeadLetterMessage) -> Result<(), StoreError> {
        self.available()?.dead_letters.push(message.clone());
        Ok(())
    }

    async fn drop_dead_letter(
        &self,
        message: &DeadDrop,
        _traceparent: &str,
    ) -> Result<(), StoreError> {
        self.available()?.dropped.push(message.clone());
        Ok(())
    }
}
