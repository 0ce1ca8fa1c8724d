//! `POST /v1/tasks/{id}/runs`: asks for one more run of a task that did not succeed.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{self, TaskId, TaskRedrive, TaskState, Timestamp};
use contracts::{ids, ContractError};
use serde::Deserialize;
use serde_json::json;

use super::lookup::{look_up, Known};
use super::tasks::task_id;
use super::{answered, taking, wish, App, Problem};
use crate::metrics::{Outcome, Route};
use crate::sink::Redriven;
use crate::trace;

/// What may stand in the body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// The run that ended, as the caller saw it. A later one is left alone: asked twice, it is one run.
    #[serde(default)]
    run: Option<events::Int<1, 2_147_483_646>>,
}

/// 202 once the run is asked for, 200 where the task is left as it is.
pub(super) async fn redrive(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let ended = ask(&app, id, request).await;
    answered(&app, Route::Redrive, ended)
}

async fn ask(
    app: &App,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<(Outcome, Response), Problem> {
    let task = task_id(id)?;
    let traceparent = taking::traceparent(request.headers())?;
    let wanted = wanted(app, request).await?;
    let known = look_up(app, &task).await?;
    if wanted.is_some_and(|run| run > known.run) {
        let error = format!("must be a run of the task; its newest is {}", known.run);
        return Err(Problem::Contract(ContractError::schema("run", error)));
    }
    let run = wanted.unwrap_or(known.run);
    if let Some(why) = against(known, run) {
        return Ok(left(&task, known, &why));
    }
    let message = TaskRedrive {
        task: task.clone(),
        tenant: app.tenant.clone(),
        run: run.try_into().map_err(Problem::Contract)?,
        requested_at: Timestamp::try_from(ids::utc_now()).map_err(Problem::Contract)?,
    };
    match app.sink.redrive(&message, &traceparent).await? {
        Redriven::Asked => {
            let (tenant, trace) = (app.tenant.as_str(), trace::id(&traceparent));
            let task = task.as_str();
            tracing::info!(task, tenant, trace, run, "asked for one more run of a task");
            let body =
                json!({ "task": task, "state": known.state.as_str(), "run": run, "asked": true });
            let response = (StatusCode::ACCEPTED, Json(body)).into_response();
            Ok((Outcome::Asked, response))
        }
        // It has changed since it was looked up.
        Redriven::Left { state, run: newest } => {
            let known = Known { state, run: newest };
            let why = against(known, run).unwrap_or_else(|| "it has just changed".to_owned());
            Ok(left(&task, known, &why))
        }
        Redriven::Foreign => Err(Problem::NotFound),
    }
}

fn left(task: &TaskId, known: Known, why: &str) -> (Outcome, Response) {
    let (task, state, run) = (task.as_str(), known.state.as_str(), known.run);
    let body = json!({ "task": task, "state": state, "run": run, "asked": false, "detail": why });
    (Outcome::Left, (StatusCode::OK, Json(body)).into_response())
}

/// Why no run follows this one.
fn against(known: Known, run: i64) -> Option<String> {
    let newest = known.run;
    if run < newest {
        let state = known.state.as_str();
        return Some(format!(
            "run {newest} has followed run {run} already and is {state}"
        ));
    }
    match known.state {
        TaskState::Failed | TaskState::Expired => None,
        TaskState::Accepted | TaskState::Running => Some(format!("run {run} has not ended")),
        TaskState::Succeeded => Some(format!("run {run} has succeeded")),
        TaskState::Cancelled => {
            Some("the task was cancelled on request; submit it again".to_owned())
        }
        TaskState::Rejected => {
            Some("the task was rejected as it is; submit another one".to_owned())
        }
    }
}

async fn wanted(app: &App, request: Request) -> Result<Option<i64>, Problem> {
    let (head, body) = request.into_parts();
    if head.uri.query().is_some_and(|query| !query.is_empty()) {
        let error = ContractError::schema("query", "must be empty; the run stands in the body");
        return Err(Problem::Contract(error));
    }
    let wish: Option<Wish> = wish::read(app, &head.headers, body).await?;
    Ok(wish.and_then(|wish| wish.run).map(events::Int::get))
}

#[cfg(test)]
mod tests {
    use super::{against, Known};
    use contracts::events::TaskState;

    #[test]
    fn only_the_newest_run_that_failed_or_expired_is_followed_by_another() {
        for state in [TaskState::Failed, TaskState::Expired] {
            assert_eq!(against(Known { state, run: 2 }, 2), None);
            assert!(against(Known { state, run: 2 }, 1)
                .unwrap()
                .contains("run 2 has followed run 1"));
        }
        for state in [
            TaskState::Accepted,
            TaskState::Running,
            TaskState::Succeeded,
            TaskState::Cancelled,
            TaskState::Rejected,
        ] {
            assert!(against(Known { state, run: 1 }, 1).is_some(), "{state:?}");
        }
    }
}
