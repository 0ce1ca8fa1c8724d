//! Requests another run of a task by the `redrive` script.

use contracts::events::{write, Event, TaskRedrive, TaskState};
use contracts::ids;
use contracts::keys::LaneKeys;

use bus::{Script, ScriptCall};

use super::cancel::ENDED_RUN_TTL_S;
use super::RedisStore;
use crate::store::{Redriven, StoreError};

impl RedisStore {
    pub(super) async fn redrive(
        &self,
        message: &TaskRedrive,
        traceparent: &str,
    ) -> Result<Redriven, StoreError> {
        let (task, tenant) = (message.task.as_str(), message.tenant.as_str());
        let keys = LaneKeys::new(ids::lane_of(&message.task));
        let body = write(message)
            .map_err(|_| StoreError::unexpected_answer("a task.redrive.v1 cannot be written"))?;
        let mut call = ScriptCall::new(Script::Redrive);
        call.key(keys.ended_runs())
            .key(keys.done())
            .key(keys.status(task))
            .key(keys.control())
            .arg(task)
            .arg(tenant)
            .arg(message.run.get())
            .arg(ENDED_RUN_TTL_S)
            .arg(5)
            .arg(&["type", TaskRedrive::TYPE, "id", task, "tenant", tenant])
            .arg(&["traceparent", traceparent])
            .arg("body")
            .arg(body);
        let (answer, state, run): (String, String, String) = self.redis.call(&call).await?;
        match answer.as_str() {
            "accepted" => Ok(Redriven::Accepted),
            "other_tenant" => Ok(Redriven::OtherTenant),
            "unchanged" => {
                let invalid = "a status hash has an unknown state or run";
                let state = TaskState::try_from(state)
                    .map_err(|_| StoreError::unexpected_answer(invalid))?;
                let run = run
                    .parse()
                    .map_err(|_| StoreError::unexpected_answer(invalid))?;
                Ok(Redriven::Unchanged { state, run })
            }
            _ => Err(StoreError::unexpected_answer(
                "redrive gave an unknown answer",
            )),
        }
    }
}
