//! Stores one task by the `admit` script.

use contracts::events::{TaskId, TaskState};
use contracts::fairness::TopicLimits;
use contracts::keys::LaneKeys;
use redis::Value;

use bus::{Script, ScriptCall};

use super::RedisStore;
use crate::admission::Admitted;
use crate::store::{StoreError, Stored};

impl RedisStore {
    pub(super) async fn admit(&self, task: &Admitted) -> Result<Stored, StoreError> {
        parse_answer(self.redis.call(&self.admit_call(task)?).await?)
    }

    /// Builds the call of the script.
    pub(super) fn admit_call(&self, task: &Admitted) -> Result<ScriptCall, StoreError> {
        let topic = self
            .topology
            .topics
            .get("tasks")
            .ok_or_else(|| StoreError::unexpected_answer("the topology has no topic tasks"))?;
        let keys = LaneKeys::new(task.lane.as_str());
        let limits = TopicLimits::new(&self.topology, topic, &keys);
        let mut call = ScriptCall::new(Script::Admit);
        call.key(keys.idempotency(task.tenant.as_str(), &task.idempotency_key))
            .key(keys.stream(topic, Some(task.priority.as_str())))
            .key(keys.status(task.task.as_str()))
            .keys(limits.keys())
            .arg(&task.fingerprint)
            .arg(task.task.as_str())
            .arg(self.idempotency_ttl_s)
            .arg(topic.high_water);
        let mut status = vec![
            ("task", task.task.as_str()),
            ("tenant", task.tenant.as_str()),
            ("state", "accepted"),
            ("run", "1"),
            ("version", "0"),
            ("stored", "0"),
            ("created_at", task.created_at.as_str()),
        ];
        if let Some(kind) = &task.kind {
            status.push(("kind", kind));
        }
        call.arg(status.len());
        for (name, value) in status {
            call.arg(name).arg(value);
        }
        call.arg(5)
            .arg(&["type", task.message_type, "id", task.task.as_str()])
            .arg(&["tenant", task.tenant.as_str()])
            .arg(&["traceparent", &task.traceparent])
            .arg("body")
            .arg(&task.body)
            .arg(limits.args(3));
        Ok(call)
    }
}

/// Reads the script's answer.
pub(super) fn parse_answer(answer: Value) -> Result<Stored, StoreError> {
    let words: Vec<String> = redis::from_owned_redis_value(answer.extract_error()?)?;
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let task = || -> Result<TaskId, StoreError> {
        word(1)
            .parse()
            .map_err(|_| StoreError::unexpected_answer("admit answered with an invalid task id"))
    };
    let state = || match word(2) {
        "" => Ok(None),
        state => TaskState::try_from(state.to_owned())
            .map(Some)
            .map_err(|_| StoreError::unexpected_answer("a status hash has an unknown state")),
    };
    match word(0) {
        "accepted" => Ok(Stored::Accepted(task()?)),
        "duplicate" => Ok(Stored::Duplicate(task()?, state()?)),
        "lost" => Ok(Stored::Lost(task()?, state()?)),
        "conflict" => Ok(Stored::Conflict(task()?)),
        "busy" => Ok(Stored::Overloaded),
        _ => Err(StoreError::unexpected_answer(
            "admit gave an unknown answer",
        )),
    }
}
