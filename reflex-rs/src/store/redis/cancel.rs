//! Marks a task as cancelled by the `cancel` script.

use contracts::events::{write, Event, TaskCancel, TaskState};
use contracts::ids;
use contracts::keys::LaneKeys;

use bus::{Script, ScriptCall};

use super::RedisStore;
use crate::store::{Cancelled, StoreError};

/// How long the marker drops what still runs of the task. Nothing of the task can be left after that.
const MARKER_TTL_S: u64 = 604_800;

impl RedisStore {
    pub(super) async fn cancel(
        &self,
        message: &TaskCancel,
        traceparent: &str,
    ) -> Result<Cancelled, StoreError> {
        let (task, tenant) = (message.task.as_str(), message.tenant.as_str());
        let keys = LaneKeys::new(ids::lane_of(&message.task));
        let body = write(message)
            .map_err(|_| StoreError::unexpected_answer("a task.cancel.v1 cannot be written"))?;
        let mut call = ScriptCall::new(Script::Cancel);
        call.key(keys.cancel(task))
            .key(keys.done())
            .key(keys.status(task))
            .key(keys.cancelled())
            .arg(tenant)
            .arg(MARKER_TTL_S)
            .arg(5)
            .arg(&["type", TaskCancel::TYPE, "id", task, "tenant", tenant])
            .arg(&["traceparent", traceparent])
            .arg("body")
            .arg(body);
        let (answer, state): (String, String) = self.redis.call(&call).await?;
        let state = Some(state)
            .filter(|state| !state.is_empty())
            .map(TaskState::try_from)
            .transpose()
            .map_err(|_| StoreError::unexpected_answer("a status hash has an unknown state"))?;
        match (answer.as_str(), state) {
            ("accepted", state) => {
                self.notify_workers(&keys, task).await;
                Ok(Cancelled::Accepted(state))
            }
            ("ended", Some(state)) => Ok(Cancelled::Ended(state)),
            ("other_tenant", _) => Ok(Cancelled::OtherTenant),
            _ => Err(StoreError::unexpected_answer(
                "cancel gave an unknown answer",
            )),
        }
    }

    /// Only speeds things up: a worker that misses it sees the marker when it renews its lease.
    async fn notify_workers(&self, keys: &LaneKeys, task: &str) {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(keys.control()).arg(format!("cancel {task}"));
        let notified: Result<(), StoreError> = self.redis.query(&publish).await;
        if let Err(error) = notified {
            tracing::warn!(
                task,
                %error,
                "cannot notify the workers of a cancellation; they see it when they renew their leases"
            );
        }
    }
}
