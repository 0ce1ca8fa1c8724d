//! Requests that a task is cancelled by the `cancel` script.

use contracts::events::{write, Event, TaskCancel, TaskState};
use contracts::ids;
use contracts::keys::LaneKeys;

use bus::{Script, ScriptCall};

use super::RedisStore;
use crate::store::{Cancelled, StoreError};

/// For how long a run counts as ended. No message of it can be left after that.
pub(super) const ENDED_RUN_TTL_S: u64 = 604_800;

impl RedisStore {
    pub(super) async fn cancel(
        &self,
        message: &TaskCancel,
        run: i64,
        traceparent: &str,
    ) -> Result<Cancelled, StoreError> {
        let (task, tenant) = (message.task.as_str(), message.tenant.as_str());
        let keys = LaneKeys::new(ids::lane_of(&message.task));
        let body = write(message)
            .map_err(|_| StoreError::unexpected_answer("a task.cancel.v1 cannot be written"))?;
        let mut call = ScriptCall::new(Script::Cancel);
        call.key(keys.ended_runs())
            .key(keys.done())
            .key(keys.status(task))
            .key(keys.control())
            .arg(task)
            .arg(tenant)
            .arg(run)
            .arg(ENDED_RUN_TTL_S)
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
            ("accepted", state) => Ok(Cancelled::Accepted(state)),
            ("ended", Some(state)) => Ok(Cancelled::Ended(state)),
            ("other_tenant", _) => Ok(Cancelled::OtherTenant),
            _ => Err(StoreError::unexpected_answer(
                "cancel gave an unknown answer",
            )),
        }
    }
}
