//! Marks a task as cancelled by the `cancel` script.

use contracts::events::{write, Event, TaskCancel, TaskState};
use contracts::ids;
use contracts::keys::LaneKeys;

use super::{broken, Sink};
use bus::StoreError;

/// How long a marker drops what still runs of its task; afterwards nothing of it can be left.
const MARKER_TTL_S: u64 = 604_800;

/// What the script said; the state is the one that Redis knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    Marked(Option<TaskState>),
    Ended(TaskState),
    /// Another tenant's.
    Foreign,
}

impl Sink {
    /// Marks the task and tells the orchestrator and all workers. After an error it may be marked; asking again is safe.
    pub async fn cancel(
        &self,
        message: &TaskCancel,
        traceparent: &str,
    ) -> Result<Cancelled, StoreError> {
        let (task, tenant) = (message.task.as_str(), message.tenant.as_str());
        let keys = LaneKeys::new(ids::lane_of(&message.task));
        let body = write(message).map_err(|_| unknown("a cancellation cannot be written"))?;
        let mut connection = self.link.connection()?;
        let (answer, state): (String, String) = self
            .cancel
            .key(keys.cancel(task))
            .key(keys.done())
            .key(keys.status(task))
            .key(keys.cancelled())
            .arg(tenant)
            .arg(MARKER_TTL_S)
            .arg(5)
            .arg(&["type", TaskCancel::TYPE, "id", task, "tenant", tenant])
            .arg(&["traceparent", traceparent])
            .arg("body")
            .arg(body)
            .invoke_async(&mut connection)
            .await?;
        let state = Some(state).filter(|state| !state.is_empty());
        let state = state
            .map(TaskState::try_from)
            .transpose()
            .map_err(|_| unknown("a status hash has an unknown state"))?;
        match (answer.as_str(), state) {
            ("accepted", state) => {
                self.tell_workers(&keys, task).await;
                Ok(Cancelled::Marked(state))
            }
            ("ended", Some(state)) => Ok(Cancelled::Ended(state)),
            ("other_tenant", _) => Ok(Cancelled::Foreign),
            _ => Err(unknown("cancel gave an unknown answer")),
        }
    }

    /// Only makes it faster: who misses it learns of the marker when its lease is renewed.
    async fn tell_workers(&self, keys: &LaneKeys, task: &str) {
        let told: Result<(), StoreError> = async {
            redis::cmd("PUBLISH")
                .arg(keys.control())
                .arg(format!("cancel {task}"))
                .query_async::<()>(&mut self.link.connection()?)
                .await
                .map_err(StoreError::from)
        }
        .await;
        if let Err(error) = told {
            tracing::warn!(task, %error, "could not tell the workers at once; they learn it from the marker");
        }
    }
}

fn unknown(what: &'static str) -> StoreError {
    broken(redis::ErrorKind::TypeError, what)
}
