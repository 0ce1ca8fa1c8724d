//! Finds a task in the store or, once its status in the store has expired, through the API.

use std::sync::Arc;

use contracts::events::{TaskId, TaskState};
use contracts::ContractError;
use serde::Deserialize;

use crate::caller::Caller;
use crate::store::{StatusError, StoreError, TaskStore};
use crate::upstream::{ApiClient, ApiError};

/// What commands and event streams need to know about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct TaskSummary {
    pub state: TaskState,
    /// The newest run.
    #[serde(default = "first_run")]
    pub run: i64,
}

fn first_run() -> i64 {
    1
}

/// Why a task cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The task does not exist, or belongs to another tenant.
    #[error("the task does not exist")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the stored status is not a task.status.v1: {0}")]
    Status(ContractError),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl From<StatusError> for LookupError {
    fn from(error: StatusError) -> Self {
        match error {
            StatusError::Store(error) => Self::Store(error),
            StatusError::Contract(error) => Self::Status(error),
        }
    }
}

/// Reads tasks from the store and the API.
#[derive(Clone)]
pub struct Lookup {
    pub store: Arc<dyn TaskStore>,
    /// Absent if no API is configured.
    pub api: Option<Arc<ApiClient>>,
}

impl Lookup {
    /// Returns what is known of the caller's task.
    pub async fn summary(
        &self,
        caller: &Caller,
        task: &TaskId,
    ) -> Result<TaskSummary, LookupError> {
        if let Some(status) = self.store.status(task).await? {
            return if caller.owns(&status.tenant) {
                Ok(TaskSummary {
                    state: status.state,
                    run: status.run.get(),
                })
            } else {
                Err(LookupError::NotFound)
            };
        }
        let Some(api) = &self.api else {
            return Err(LookupError::NotFound);
        };
        let found = api.read(&format!("/v1/tasks/{task}"), caller).await?;
        found.ok_or(LookupError::NotFound)
    }
}
