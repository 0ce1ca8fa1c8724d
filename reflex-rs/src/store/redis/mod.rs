//! The task store in Redis. Changes run as Lua scripts, all or nothing; a script's header documents its keys and arguments.

mod admit;
mod cancel;
mod dead_letters;
mod group_commit;
mod history;
mod msgpack;
mod redrive;
mod replicas;
mod status;
mod tail;
mod waiting;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contracts::events::{
    DeadDrop, List, TaskCancel, TaskEvent, TaskId, TaskRedrive, TaskStatus, WaitingStep,
};
use contracts::topology::Topology;
use service::Supervisor;

use self::admit::AdmitCalls;
use self::group_commit::GroupCommit;
use self::replicas::Replicas;
use self::tail::Tail;
use super::{
    Cancelled, EventId, Redriven, Replicated, ServerInfo, StatusError, StoreError, Stored,
    TaskStore, Watch,
};
use crate::admission::{Admitted, DeadLetterMessage};
use bus::RedisClient;

/// How long one answer of Redis may take.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_millis(850);
/// How long everything may take that one method asks of Redis, so that every client is answered within a second.
const METHOD_TIMEOUT: Duration = Duration::from_millis(950);

/// Fails if Redis does not answer in time. What was sent may be executed nevertheless.
async fn in_time<T, E: From<StoreError>>(
    exchange: impl Future<Output = Result<T, E>> + Send,
) -> Result<T, E> {
    match tokio::time::timeout(METHOD_TIMEOUT, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(E::from(unanswered())),
    }
}

/// The error of a command that was sent and not answered in time.
fn unanswered() -> StoreError {
    redis::RedisError::from(io::Error::from(io::ErrorKind::TimedOut)).into()
}

/// Stores tasks in Redis.
pub struct RedisStore {
    redis: RedisClient,
    topology: Arc<Topology>,
    /// By lane; empty if the topology has no topic `tasks`.
    admit_calls: HashMap<String, Arc<AdmitCalls>>,
    group_commit: GroupCommit,
    replicas: Replicas,
    tail: Tail,
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
        let admit_calls: HashMap<_, _> = topology
            .lanes
            .iter()
            .filter_map(|lane| {
                let calls = AdmitCalls::new(&topology, lane, idempotency_ttl_s)?;
                Some((lane.clone(), Arc::new(calls)))
            })
            .collect();
        Self {
            group_commit: GroupCommit::start(&redis, &admit_calls, supervisor),
            admit_calls,
            replicas: Replicas::new(redis.clone(), supervisor.clone(), replica_wait),
            tail: Tail::start(&redis, &topology, supervisor),
            redis,
            topology,
        }
    }
}

#[async_trait]
impl TaskStore for RedisStore {
    async fn ping(&self) -> Result<(), StoreError> {
        in_time(self.redis.ping()).await
    }

    fn server_info(&self) -> Result<ServerInfo, StoreError> {
        self.redis.server_info()
    }

    fn now_ms(&self) -> Result<u64, StoreError> {
        self.redis.now_ms()
    }

    async fn until_unavailable(&self) {
        self.redis.until_unavailable().await;
    }

    async fn admit(&self, task: &Arc<Admitted>) -> Result<Stored, StoreError> {
        in_time(self.group_commit.admit(Arc::clone(task))).await
    }

    async fn admit_replicated(
        &self,
        task: &Arc<Admitted>,
        replicas: usize,
    ) -> Result<Replicated, StoreError> {
        let calls = self.admit_calls.get(&task.lane);
        let calls = calls.ok_or_else(group_commit::unknown_lane)?;
        let call = calls.call(std::slice::from_ref(task));
        let task = Arc::clone(task);
        self.replicas.admit(task, call, replicas).await
    }

    async fn status(&self, task: &TaskId) -> Result<Option<TaskStatus>, StatusError> {
        in_time(status::read(&self.redis, task)).await
    }

    async fn is_persisted(&self, task: &TaskId) -> Result<Option<bool>, StoreError> {
        in_time(status::is_persisted(&self.redis, task)).await
    }

    async fn waiting_steps(
        &self,
        status: &TaskStatus,
    ) -> Result<Option<List<WaitingStep, 200>>, StoreError> {
        let steps = waiting::steps(&self.redis, &self.topology, status);
        in_time(steps).await
    }

    async fn history(
        &self,
        task: &TaskId,
        after: Option<EventId>,
    ) -> Result<Vec<TaskEvent>, StoreError> {
        // Each of its many commands has its own limit; a long history takes longer than one of them.
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
        in_time(self.cancel(message, run, traceparent)).await
    }

    async fn redrive(
        &self,
        message: &TaskRedrive,
        traceparent: &str,
    ) -> Result<Redriven, StoreError> {
        in_time(self.redrive(message, traceparent)).await
    }

    async fn publish_dead_letter(&self, message: &DeadLetterMessage) -> Result<(), StoreError> {
        in_time(dead_letters::publish(&self.redis, message)).await
    }

    async fn drop_dead_letter(
        &self,
        message: &DeadDrop,
        traceparent: &str,
    ) -> Result<(), StoreError> {
        let lane = self.topology.lanes.first().map_or("l0", String::as_str);
        in_time(dead_letters::request_drop(
            &self.redis,
            message,
            lane,
            traceparent,
        ))
        .await
    }
}
