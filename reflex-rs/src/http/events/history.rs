//! What happened before: from the API where there is one, which knows everything, else what Redis still holds.

use std::fmt::Write as _;

use contracts::events::{TaskEvent, TaskId};
use serde::Deserialize;
use serde_json::Value;

use super::super::{App, Problem};
use crate::reads::{self, Place};

const LIMIT: usize = 500;

/// Events in order, and whether there are more.
pub(super) struct Page {
    pub events: Vec<TaskEvent>,
    pub more: bool,
}

/// The API's page. Its cursor is not needed: an event's own place says as well where the next page begins.
#[derive(Deserialize)]
struct Answer {
    items: Vec<TaskEvent>,
    #[serde(default)]
    next: Option<Value>,
}

/// The task's events after `after`.
pub(super) async fn page(app: &App, task: &TaskId, after: Option<Place>) -> Result<Page, Problem> {
    let Some(api) = &app.api else {
        let events = reads::kept(app.sink.link(), &app.topology, task, after).await?;
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
    // A task that Postgres does not know yet has no history.
    let answer: Option<Answer> = api.read(&path, &app.tenant).await?;
    let (events, next) = answer.map_or((Vec::new(), None), |answer| (answer.items, answer.next));
    let more = next.is_some() && !events.is_empty();
    Ok(Page { events, more })
}
