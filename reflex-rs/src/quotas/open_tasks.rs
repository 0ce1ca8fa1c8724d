//! How many tasks of a tenant or a key are open: accepted and not ended. Counted in Redis, where a task is stored and where it
//! ends; see `lua/open_tasks.lua`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::{RedisClient, Script, ScriptCall, StoreError};
use contracts::events::TaskId;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;
use service::Supervisor;

use super::fields;
use super::limit::{Exceeded, Fields, Limit, OwnerKind};

/// How long a refused submission is asked to wait. Nobody knows when a task will end.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Records without a task are looked for at most once in this time, and only while an owner is at its limit.
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);
/// Records that one call looks at.
const PRUNE_COUNT: usize = 500;
/// A task is stored within this time after it was recorded.
const UNSTORED_S: u64 = 10;
/// The message of an accepted task is on its stream for so long that a missing one is lost.
const UNREAD_S: u64 = 600;

/// One owner's limit of open tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaskLimit {
    pub owner: OwnerKind,
    /// Its name in Redis.
    pub name: String,
    pub most: u64,
}

/// The limits that a caller's tasks must respect; usually none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskLimits(pub(super) Vec<TaskLimit>);

impl TaskLimits {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What Redis answers to a task that is to be recorded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    Now,
    /// It was recorded before, or is a repeat.
    Before,
    /// This owner is at its limit.
    No(TaskLimit),
}

/// Records open tasks.
#[derive(Clone)]
pub(super) struct OpenTasks {
    pub redis: RedisClient,
    pub topology: Arc<Topology>,
    pub supervisor: Supervisor,
    /// When the records of each lane were pruned.
    pub pruned: Arc<Mutex<HashMap<String, Instant>>>,
}

impl OpenTasks {
    /// Records a task as open. `idempotency_key`: the producer's.
    pub async fn open(
        &self,
        task: &TaskId,
        idempotency_key: Option<(&str, &str)>,
        limits: &TaskLimits,
    ) -> Result<Opened, StoreError> {
        let keys = keys_of(task);
        let mut call = call(Script::OpenTask, &keys);
        if let Some((tenant, key)) = idempotency_key {
            call.key(keys.idempotency(tenant, key));
        }
        call.arg(task.as_str());
        let lanes = self.topology.lanes.len().max(1) as u64;
        for limit in &limits.0 {
            // Each lane has its share: a script sees one lane.
            call.arg(&limit.name).arg(limit.most.div_ceil(lanes));
        }
        let (word, number, _): (String, usize, u64) = self.redis.call(&call).await?;
        match (word.as_str(), number.checked_sub(1)) {
            ("opened", _) => Ok(Opened::Now),
            ("known", _) => Ok(Opened::Before),
            ("full", Some(index)) if index < limits.0.len() => {
                self.prune_soon(&keys);
                Ok(Opened::No(limits.0[index].clone()))
            }
            _ => Err(StoreError::unexpected_answer(
                "open_task gave an unknown answer",
            )),
        }
    }

    /// Removes the record of a task that was not stored. If this fails, it is pruned later.
    pub async fn close(&self, task: &TaskId) {
        let mut call = call(Script::CloseTasks, &keys_of(task));
        call.arg(task.as_str());
        if let Err(error) = self.redis.call::<u64>(&call).await {
            tracing::debug!(task = task.as_str(), %error, "the record of an open task stays until it is pruned");
        }
    }

    /// Returns how many tasks of an owner are open.
    pub async fn count(&self, owner: &str) -> Result<u64, StoreError> {
        let mut open = 0;
        for lane in &self.topology.lanes {
            let mut command = redis::cmd("ZLEXCOUNT");
            command
                .arg(LaneKeys::new(lane).open_task_owners())
                .arg(format!("[{owner} "))
                .arg(format!("({owner}!"));
            open += self.redis.query::<u64>(&command).await?;
        }
        Ok(open)
    }

    /// Looks for records without a task, in the background.
    fn prune_soon(&self, keys: &LaneKeys) {
        let now = Instant::now();
        {
            let mut pruned = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
            let last = pruned.get(keys.lane()).copied();
            if last.is_some_and(|last| now - last < PRUNE_INTERVAL) {
                return;
            }
            pruned.insert(keys.lane().to_owned(), now);
        }
        let (this, keys) = (self.clone(), keys.clone());
        self.supervisor.spawn_task("open tasks", async move {
            match this.prune(&keys).await {
                Ok(0) => {}
                Ok(removed) => tracing::warn!(removed, "open tasks had ended unnoticed"),
                Err(error) => tracing::debug!(%error, "open tasks were not pruned"),
            }
        });
    }

    async fn prune(&self, keys: &LaneKeys) -> Result<u64, StoreError> {
        let (mut cursor, mut removed) = ("0".to_owned(), 0);
        loop {
            let mut call = call(Script::PruneOpenTasks, keys);
            if let Some(topic) = self.topology.topics.get("tasks") {
                for stream in keys.streams(topic, &self.topology.priorities) {
                    call.key(LaneKeys::waiting(&stream)).key(stream);
                }
            }
            call.arg(&cursor)
                .arg(PRUNE_COUNT)
                .arg(keys.status(""))
                .arg(UNSTORED_S)
                .arg(UNREAD_S);
            let (next, of_page): (String, u64) = self.redis.call(&call).await?;
            removed += of_page;
            if next == "0" {
                return Ok(removed);
            }
            cursor = next;
        }
    }
}

fn keys_of(task: &TaskId) -> LaneKeys {
    LaneKeys::new(task.as_str().split('-').next().unwrap_or_default())
}

fn call(script: Script, keys: &LaneKeys) -> ScriptCall {
    let mut call = ScriptCall::new(script);
    call.key(keys.open_tasks()).key(keys.open_task_owners());
    call
}

/// How a caller is refused that has as many open tasks as `limit` allows.
pub(super) fn exceeded(limits: &TaskLimits, limit: &TaskLimit) -> Exceeded {
    let policies = limits.0.iter().map(fields::tasks_policy);
    Exceeded {
        limit: Limit::Tasks,
        owner: limit.owner,
        retry_after: RETRY_AFTER,
        fields: Fields {
            policy: fields::join(policies),
            state: fields::exceeded(limit.owner, Limit::Tasks, 0, RETRY_AFTER),
        },
    }
}
