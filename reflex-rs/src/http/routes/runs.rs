//! `POST /v1/tasks/{id}/runs`: requests another run of a task that did not succeed.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{self, TaskId, TaskRedrive, TaskState, Timestamp};
use contracts::{ids, ContractError};
use serde::Deserialize;
use serde_json::json;

use super::run_command;
use crate::caller::Caller;
use crate::http::extract::{self, optional_object, task_id, Authorized, Operate};
use crate::http::{App, Problem};
use crate::lookup::TaskSummary;
use crate::metrics::Route;
use crate::outcome::Outcome;
use crate::store::{Redriven, StoreError};
use crate::trace;

/// The optional body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RedriveRequest {
    /// The run that the client saw end. A request repeated with it opens no second run.
    #[serde(default)]
    run: Option<events::Int<1, 2_147_483_646>>,
}

/// Answers 202 once the run is requested, and 200 if the task needs none.
pub(in crate::http) async fn redrive(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Operate>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (of_app, of) = (Arc::clone(&app), caller.clone());
    let command = async move { request_run(&of_app, &of, id, request).await };
    run_command(&app, Route::Redrive, &caller, command).await
}

async fn request_run(
    app: &App,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<(Outcome, Response), Problem> {
    let task = task_id(id)?;
    let traceparent = extract::traceparent(request.headers())?;
    let requested = requested_run(app, request).await?;
    let lookup = &app.service.lookup;
    let known = lookup.summary(caller, &task).await?;
    if requested.is_some_and(|run| run > known.run) {
        let rule = format!("must be a run of the task; its newest is {}", known.run);
        return Err(ContractError::schema("run", rule).into());
    }
    let run = requested.unwrap_or(known.run);
    if let Some(reason) = no_run_after(known, run) {
        return Ok(unchanged(&task, known, &reason));
    }
    let message = TaskRedrive {
        task: task.clone(),
        tenant: caller.tenant.clone(),
        run: run.try_into()?,
        requested_at: Timestamp::try_from(ids::timestamp(lookup.store.now_ms()?))?,
    };
    let quotas = &app.service.quotas;
    let limits = quotas.task_limits(caller);
    let opened = quotas.open_task(&task, None, &limits, None).await?;
    let redriven = lookup.store.redrive(&message, &traceparent).await;
    let may_run = matches!(
        redriven,
        Ok(Redriven::Accepted) | Err(StoreError::Unknown(_))
    );
    if opened && !may_run {
        quotas.close_task(&task, &limits).await;
    }
    match redriven? {
        Redriven::Accepted => {
            let (tenant, trace) = (caller.tenant.as_str(), trace::trace_id(&traceparent));
            let (task, state) = (task.as_str(), known.state.as_str());
            tracing::info!(task, tenant, trace, run, "requested another run of a task");
            let body = json!({ "task": task, "state": state, "run": run, "accepted": true });
            let response = (StatusCode::ACCEPTED, Json(body)).into_response();
            Ok((Outcome::Accepted, response))
        }
        // The task has changed since the lookup.
        Redriven::Unchanged { state, run: newest } => {
            let known = TaskSummary { state, run: newest };
            let reason =
                no_run_after(known, run).unwrap_or_else(|| "the task has just changed".to_owned());
            Ok(unchanged(&task, known, &reason))
        }
        Redriven::OtherTenant => Err(Problem::NotFound),
    }
}

fn unchanged(task: &TaskId, known: TaskSummary, reason: &str) -> (Outcome, Response) {
    let (task, state, run) = (task.as_str(), known.state.as_str(), known.run);
    let body =
        json!({ "task": task, "state": state, "run": run, "accepted": false, "detail": reason });
    let response = (StatusCode::OK, Json(body)).into_response();
    (Outcome::Unchanged, response)
}

/// Returns why no run can follow `run`, or `None` if one can.
fn no_run_after(known: TaskSummary, run: i64) -> Option<String> {
    let newest = known.run;
    if run < newest {
        let state = known.state.as_str();
        return Some(format!(
            "run {newest} has already followed run {run} and is {state}"
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

/// Reads the run from the body; the query must be empty.
async fn requested_run(app: &App, request: Request) -> Result<Option<i64>, Problem> {
    let (head, body) = request.into_parts();
    if head.uri.query().is_some_and(|query| !query.is_empty()) {
        let rule = "must be empty; send the run in the body";
        return Err(ContractError::schema("query", rule).into());
    }
    let request: Option<RedriveRequest> = optional_object(app, &head.headers, body).await?;
    Ok(request
        .and_then(|request| request.run)
        .map(events::Int::get))
}

#[cfg(test)]
mod tests {
    use super::{no_run_after, TaskSummary};
    use contracts::events::TaskState;

    #[test]
    fn only_the_newest_run_can_be_followed_and_only_if_it_failed_or_expired() {
        for state in [TaskState::Failed, TaskState::Expired] {
            assert_eq!(no_run_after(TaskSummary { state, run: 2 }, 2), None);
            assert!(no_run_after(TaskSummary { state, run: 2 }, 1)
                .unwrap()
                .contains("run 2 has already followed run 1"));
        }
        for state in [
            TaskState::Accepted,
            TaskState::Running,
            TaskState::Succeeded,
            TaskState::Cancelled,
            TaskState::Rejected,
        ] {
            assert!(
                no_run_after(TaskSummary { state, run: 1 }, 1).is_some(),
                "{state:?}"
            );
        }
    }
}
