//! Keeps what a 202 promises: stores a submission, and answers only once it is as durable as the deployment and the request
//! need it to be.

use axum::http::HeaderMap;
use contracts::events::TaskId;
use serde::de::IgnoredAny;
use tokio::time::{timeout_at, Instant};

use super::{App, Problem};
use crate::admission::Admitted;
use crate::durability::Durability;
use crate::reads;
use crate::sink::{Replicated, Stored};

/// Asks for more than the deployment needs.
pub(super) const HEADER: &str = "octollm-durability";

/// What the deployment needs and what this request asks for beyond.
pub(super) fn needed(app: &App, headers: &HeaderMap) -> Result<Durability, Problem> {
    let mut all = headers.get_all(HEADER).iter();
    let asked = match (all.next(), all.next()) {
        (None, _) => Some(Durability::default()),
        (Some(one), None) => one
            .to_str()
            .ok()
            .and_then(|text| Durability::parse(text, app.replicas)),
        (Some(_), Some(_)) => None,
    };
    asked
        .map(|asked| app.durability.and(asked))
        .ok_or(Problem::Durability)
}

/// Stores a task; with what holds of it then.
pub(super) async fn store(
    app: &App,
    admitted: &Admitted,
    needed: Durability,
) -> Result<(Stored, Durability), Problem> {
    if needed.stored {
        let stored = until_stored(app, admitted, needed).await?;
        return Ok((stored, needed));
    }
    let facts = app.sink.link().server_info()?;
    let synced = facts.synced == Some(true);
    if needed.synced && !synced {
        return Err(Problem::NotDurable(
            "Redis does not sync before it answers (appendonly yes, appendfsync always), or does not say so",
        ));
    }
    let reached = Durability { synced, ..needed };
    if needed.replicas == 0 {
        let stored = app.sink.admit(&app.topology, admitted).await?;
        return Ok((stored, reached));
    }
    if facts.replicas.is_some_and(|known| known < needed.replicas) {
        return Err(Problem::NotDurable("too few replicas follow Redis"));
    }
    let replicated = app
        .sink
        .admit_replicated(&app.topology, admitted, needed.replicas)
        .await?;
    match replicated {
        Replicated::Kept(stored) => Ok((stored, reached)),
        Replicated::Unconfirmed(Stored::Accepted(task) | Stored::Duplicate(task)) => {
            Err(unconfirmed(app, task, needed))
        }
        // Nothing was taken, so that nothing has to be confirmed.
        Replicated::Unconfirmed(refused) => Ok((refused, reached)),
        Replicated::Left => Err(Problem::NotDurable("the replicas of Redis do not keep up")),
    }
}

/// Stores a task and waits until the orchestrator has committed it.
async fn until_stored(
    app: &App,
    admitted: &Admitted,
    needed: Durability,
) -> Result<Stored, Problem> {
    let link = app.sink.link();
    // At once, where Redis is known to be away.
    link.connection()?;
    let deadline = Instant::now() + app.durability_wait;
    // Before it is taken, so that no event can be missed.
    let mut watch = watch(app, &admitted.task, deadline).await?;
    let stored = app.sink.admit(&app.topology, admitted).await?;
    let (Stored::Accepted(task) | Stored::Duplicate(task)) = &stored else {
        return Ok(stored);
    };
    let failed = || unconfirmed(app, task.clone(), needed);
    let id: TaskId = task
        .parse()
        .map_err(|_| Problem::Internal(format!("the task id {task} is none")))?;
    if id != admitted.task {
        watch = self::watch(app, &id, deadline)
            .await
            .map_err(|_| failed())?;
        match reads::is_stored(link, &id).await {
            Ok(Some(true)) => return Ok(stored),
            // What has ended long ago has no status any more.
            Ok(None) if known_to_api(app, admitted, &id, deadline).await => return Ok(stored),
            _ => {}
        }
    }
    if reads::until_stored(link, watch, &id, deadline).await {
        return Ok(stored);
    }
    Err(failed())
}

async fn watch(app: &App, task: &TaskId, deadline: Instant) -> Result<reads::Watch, Problem> {
    match timeout_at(deadline, app.tail.watch(task)).await {
        Ok(watch) => Ok(watch?),
        Err(_) => Err(Problem::NotDurable("the live events cannot be followed")),
    }
}

async fn known_to_api(app: &App, admitted: &Admitted, task: &TaskId, deadline: Instant) -> bool {
    let Some(api) = &app.api else { return false };
    let path = format!("/v1/tasks/{}", task.as_str());
    let asked = api.read::<IgnoredAny>(&path, &admitted.tenant);
    matches!(timeout_at(deadline, asked).await, Ok(Ok(Some(_))))
}

fn unconfirmed(app: &App, task: String, needed: Durability) -> Problem {
    let seconds = app.durability_wait.as_secs();
    Problem::Unconfirmed {
        task,
        needed,
        seconds,
    }
}
