//! Waits until Postgres has a task.

use std::sync::Arc;

use contracts::events::TaskId;
use serde::de::IgnoredAny;
use tokio::time::{timeout_at, Instant};

use super::SubmitError;
use crate::admission::Admitted;
use crate::caller::Caller;
use crate::lookup::Lookup;
use crate::store::{Item, StoreError, Stored, TaskStore, Watch};

/// Stores a task and waits until the orchestrator has committed it to Postgres.
///
/// Returns the store's answer and whether the commit is confirmed by `deadline`.
pub(super) async fn store_and_confirm(
    lookup: &Lookup,
    task: &Arc<Admitted>,
    deadline: Instant,
) -> Result<(Stored, bool), SubmitError> {
    let store = &lookup.store;
    // Fails at once while the store is unavailable.
    store.server_info()?;
    // Subscribes before the task is stored, so that its first event cannot be missed.
    let mut watch = subscribe(store, &task.task, deadline).await?;
    let stored = store.admit(task).await?;
    let (Stored::Accepted(id) | Stored::Duplicate(id, _)) = &stored else {
        return Ok((stored, true));
    };
    if *id != task.task {
        // A duplicate: the first task may be committed already.
        watch = match subscribe(store, id, deadline).await {
            Ok(watch) => watch,
            Err(_) => return Ok((stored, false)),
        };
        let persisted = match store.is_persisted(id).await {
            Ok(Some(persisted)) => persisted,
            // The status of a task that ended long ago has expired.
            Ok(None) => is_known_to_api(lookup, task, id, deadline).await,
            Err(_) => false,
        };
        if persisted {
            return Ok((stored, true));
        }
    }
    let confirmed = tokio::select! {
        confirmed = until_persisted(store, watch, id, deadline) => confirmed,
        // It may come back in time, but its clients are answered within a second.
        () = store.until_unavailable() => false,
    };
    Ok((stored, confirmed))
}

async fn subscribe(
    store: &Arc<dyn TaskStore>,
    task: &TaskId,
    deadline: Instant,
) -> Result<Watch, SubmitError> {
    match timeout_at(deadline, store.watch(task)).await {
        Ok(watch) => Ok(watch?),
        Err(_) => Err(SubmitError::NotDurable(
            "the event stream cannot be followed",
        )),
    }
}

async fn is_known_to_api(
    lookup: &Lookup,
    submitted: &Admitted,
    task: &TaskId,
    deadline: Instant,
) -> bool {
    let Some(api) = &lookup.api else { return false };
    let (path, caller) = (
        format!("/v1/tasks/{task}"),
        Caller::new(submitted.tenant.clone()),
    );
    let answer = api.read::<IgnoredAny>(&path, &caller);
    matches!(timeout_at(deadline, answer).await, Ok(Ok(Some(_))))
}

/// Waits for the commit; false if it is not known by `deadline`.
///
/// The orchestrator publishes every event after its commit, so any event of the task confirms it.
async fn until_persisted(
    store: &Arc<dyn TaskStore>,
    mut watch: Watch,
    task: &TaskId,
    deadline: Instant,
) -> bool {
    loop {
        let item = timeout_at(deadline, watch.next()).await;
        if let Ok(Item::Event(_)) = item {
            return true;
        }
        // The event may be among those that a gap hides.
        let persisted: Result<_, StoreError> = store.is_persisted(task).await;
        if let Ok(Some(true)) = persisted {
            return true;
        }
        if item.is_err() {
            return false;
        }
    }
}
