//! Reads what happened to a task before: from the API, which knows everything, or without one what the store still holds.

use std::fmt::Write as _;

use contracts::events::{TaskEvent, TaskId};
use serde::Deserialize;
use serde_json::Value;

use crate::caller::Caller;
use crate::lookup::{Lookup, LookupError};
use crate::store::EventId;

/// Events in one page of the API.
const LIMIT: usize = 500;

/// Events in order, and whether there are more.
pub struct Page {
    pub events: Vec<TaskEvent>,
    pub more: bool,
}

/// The API's page. Its cursor is not used: the last event's id says where the next page begins.
#[derive(Deserialize)]
struct ApiPage {
    items: Vec<TaskEvent>,
    #[serde(default)]
    next: Option<Value>,
}

/// Returns the task's events after `after`.
pub async fn page(
    lookup: &Lookup,
    caller: &Caller,
    task: &TaskId,
    after: Option<EventId>,
) -> Result<Page, LookupError> {
    let Some(api) = &lookup.api else {
        let events = lookup.store.history(task, after).await?;
        return Ok(Page {
            events,
            more: false,
        });
    };
    let mut path = format!("/v1/tasks/{task}/events?limit={LIMIT}");
    if let Some(after) = after {
        // Writing to a string cannot fail.
        let _ = write!(path, "&after={after}");
    }
    // Postgres may not know the task yet; it has no history then.
    let answer: Option<ApiPage> = api.read(&path, caller).await?;
    let (events, next) = answer.map_or((Vec::new(), None), |answer| (answer.items, answer.next));
    let more = next.is_some() && !events.is_empty();
    Ok(Page { events, more })
}
