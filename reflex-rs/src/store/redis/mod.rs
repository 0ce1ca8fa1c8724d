//! The task store in Redis. Changes run as Lua scripts, all or nothing; a script's header documents its keys and arguments.

mod admit;
mod cancel;
mod dead_letters;
mod history;
mod redrive;
mod replicas;
mod status;
mod tail;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contracts::events::{
    DeadDrop, List, TaskCancel, TaskEvent, TaskId, TaskRedrive, TaskStatus, WaitingStep,
};
use contracts::topology::Topology;
use service::Supervisor;

use self::replicas::Replicas;
use self::tail::Tail;
use super::{
    Cancelled, EventId, Redriven, Replicated, ServerInfo, StatusError, StoreError, Stored,
    TaskStore, Watch,
};
use crate::admission::{Admitted, DeadLetterMessage};
use bus::RedisClient;

/// Stores tasks in Redis.
pub struct RedisStore {
    redis: RedisClient,
    topology: Arc<Topology>,
    replicas: Replicas,
    tail: Tail,
    idempotency_ttl_s: u64,
}

impl RedisStore {
    /// `idempotency_ttl_s`: time to live of an idempotency key; `replica_wait`: how long replicas are waited for.
    #[must_use]
    pub fn new(
        redis: RedisClient,
        topology: Arc<Topology>,
        supervisor: &Supervisor,
        idempotency_ttl_s: u64,
        replica_wait: Duration,
    ) -> Self {
        Self {
            replicas: Replicas::new(redis.clone(), supervisor.clone(), replica_wait),
            tail: Tail::start(&redis, &topology, supervisor),
            redis,
            topology,
            idempotency_ttl_s,
        }
    }
}

#[async_trait]
impl TaskStore for RedisStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.redis.ping().await
    }

    fn server_info(&self) -> Result<ServerInfo, StoreError> {
        self.redis.server_info()
    }

    async fn admit(&self, task: &Admitted) -> Result<Stored, StoreError> {
        self.admit(task).await
    }

    async fn admit_replicated(
        &self,
        task: &Admitted,
        replicas: usize,
    ) -> Result<Replicated, StoreError> {
        let command = self.admit_call(task)?.command();
        self.replicas.admit(command, &task.lane, replicas).await
    }

    async fn status(&self, task: &TaskId) -> Result<Option<TaskStatus>, StatusError> {
        status::read(&self.redis, task).await
    }

    async fn is_persisted(&self, task: &TaskId) -> Result<Option<bool>, StoreError> {
        status::is_persisted(&self.redis, task).await
    }

    async fn waiting_steps(
        &self,
        status: &TaskStatus,
        now_ms: u64,
    ) -> Result<Option<List<WaitingStep, 200>>, StoreError> {
        waiting::steps(&self.redis, &self.topology, status, now_ms).await
    }

    async fn history(
        &self,
        task: &TaskId,
        after: Option<EventId>,
    ) -> Result<Vec<TaskEvent>, StoreError> {
        history::read(&self.redis, &self.topology, task, after).await
    }

    async fn watch(&self, task: &TaskId) -> Result<Watch, StoreError> {
        self.tail.watch(task).await
    }

    async fn cancel(
        &self,
        message: &TaskCancel,
        run: i64,
        traceparent: &str,
    ) -> Result<Cancelled, StoreError> {
        self.cancel(message, run, traceparent).await
    }

    async fn redrive(
        &self,
        message: &TaskRedrive,
        traceparent: &str,
    ) -> Result<Redriven, StoreError> {
        self.redrive(message, traceparent).await
    }

    async fn publish_dead_letter(&self, message: &DeadLetterMessage) -> Result<(), StoreError> {
        dead_letters::publish(&self.redis, message).await
    }

    async fn drop_dead_letter(
        &self,
        message: &DeadDrop,
        traceparent: &str,
    ) -> Result<(), StoreError> {
        let lane = self.topology.lanes.first().map_or("l0", String::as_str);
        dead_letters::request_drop(&self.redis, message, lane, traceparent).await
    }
}
