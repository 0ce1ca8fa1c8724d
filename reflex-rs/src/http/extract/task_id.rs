//! The task id in the path.

use axum::extract::rejection::PathRejection;
use axum::extract::Path;
use contracts::events::TaskId;

use crate::http::Problem;

/// Parses the task id. A task with an invalid id cannot exist, so this fails with `NotFound`.
pub(in crate::http) fn task_id(id: Result<Path<String>, PathRejection>) -> Result<TaskId, Problem> {
    let Path(id) = id.map_err(|_| Problem::NotFound)?;
    id.parse().map_err(|_| Problem::NotFound)
}
