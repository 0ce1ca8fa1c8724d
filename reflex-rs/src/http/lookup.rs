//! What is known about a task, from Redis or, where Redis has forgotten it, from the API.

use contracts::events::{TaskId, TaskState};
use serde::Deserialize;

use super::{App, Problem};
use crate::reads;

/// As much as control and live view need.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Known {
    pub state: TaskState,
    #[serde(default = "first")]
    pub run: i64,
}

fn first() -> i64 {
    1
}

/// The task, where it is the caller's; anything else does not exist.
pub(super) async fn look_up(app: &App, task: &TaskId) -> Result<Known, Problem> {
    if let Some(status) = reads::status(app.sink.link(), task).await? {
        return if status.tenant == app.tenant {
            Ok(Known {
                state: status.state,
                run: status.run.get(),
            })
        } else {
            Err(Problem::NotFound)
        };
    }
    let Some(api) = &app.api else {
        return Err(Problem::NotFound);
    };
    let found = api.read(&format!("/v1/tasks/{task}"), &app.tenant).await?;
    found.ok_or(Problem::NotFound)
}

/// Whether nothing more comes of this run.
pub(super) fn is_terminal(state: TaskState) -> bool {
    !matches!(state, TaskState::Accepted | TaskState::Running)
}
