//! Asks for one more run of a task by the `redrive` script, and for a dead letter to be dropped.

use contracts::events::{write, DeadDrop, Event, TaskRedrive, TaskState};
use contracts::ids;
use contracts::keys::LaneKeys;

use super::{broken, Sink};
use bus::StoreError;

/// What the script said; state and run are those that Redis knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redriven {
    Asked,
    /// There is no such run to follow, or it needs no other.
    Left {
        state: TaskState,
        run: i64,
    },
    /// Another tenant's.
    Foreign,
}

impl Sink {
    /// Asks for the run after the one that the message names. After an error it may be asked for; asking again is safe.
    pub async fn redrive(
        &self,
        message: &TaskRedrive,
        traceparent: &str,
    ) -> Result<Redriven, StoreError> {
        let (task, tenant) = (message.task.as_str(), message.tenant.as_str());
        let keys = LaneKeys::new(ids::lane_of(&message.task));
        let body = write(message).map_err(|_| unknown("a redrive cannot be written"))?;
        let (answer, state, run): (String, String, String) = self
            .redrive
            .key(keys.cancel(task))
            .key(keys.done())
            .key(keys.status(task))
            .key(keys.cancelled())
            .arg(tenant)
            .arg(message.run.get())
            .arg(5)
            .arg(&["type", TaskRedrive::TYPE, "id", task, "tenant", tenant])
            .arg(&["traceparent", traceparent])
            .arg("body")
            .arg(body)
            .invoke_async(&mut self.link.connection()?)
            .await?;
        match answer.as_str() {
            "accepted" => Ok(Redriven::Asked),
            "other_tenant" => Ok(Redriven::Foreign),
            "unchanged" => {
                let wrong = "a status hash has an unknown state or run";
                let state = TaskState::try_from(state).map_err(|_| unknown(wrong))?;
                let run = run.parse().map_err(|_| unknown(wrong))?;
                Ok(Redriven::Left { state, run })
            }
            _ => Err(unknown("redrive gave an unknown answer")),
        }
    }

    /// Tells the archive. After an error it may have been told; telling it again is safe.
    pub async fn drop_letter(
        &self,
        message: &DeadDrop,
        lane: &str,
        traceparent: &str,
    ) -> Result<(), StoreError> {
        let body = write(message).map_err(|_| unknown("a drop cannot be written"))?;
        redis::cmd("XADD")
            .arg(LaneKeys::new(lane).dead())
            .arg("*")
            .arg(&["type", DeadDrop::TYPE, "id", ""])
            .arg(&["tenant", message.tenant.as_str()])
            .arg(&["traceparent", traceparent])
            .arg("body")
            .arg(body)
            .query_async::<()>(&mut self.link.connection()?)
            .await
            .map_err(StoreError::from)
    }
}

fn unknown(what: &'static str) -> StoreError {
    broken(redis::ErrorKind::TypeError, what)
}
