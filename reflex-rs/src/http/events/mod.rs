//! `GET /v1/tasks/{id}/events`: what happens to a task, as server-sent events.
//!
//! A view's way: `mod` (may it begin, and where) → `history` (what was) → `feed` (what is, until the end) → `frame` (as
//! text). An event's id is `<run>-<seq>`; a client that comes back with the last one it saw misses nothing.

mod feed;
mod frame;
mod history;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{header, HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use self::feed::Feed;
use self::frame::Frames;
use super::lookup::{is_terminal, look_up};
use super::tasks::task_id;
use super::{answered, App, Problem};
use crate::metrics::{Outcome, Route};
use crate::reads::Place;

/// Begins a live view; 204 where there is nothing left to see.
pub(super) async fn watch(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let begun = begin(&app, id, &uri, &headers).await;
    answered(&app, Route::Events, begun)
}

async fn begin(
    app: &App,
    id: Result<Path<String>, PathRejection>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    let task = task_id(id)?;
    let after = position(uri, headers)?;
    let slot = Arc::clone(&app.event_slots)
        .try_acquire_owned()
        .map_err(|_| Problem::Streams)?;
    let known = look_up(app, &task).await?;
    // In this order: what is published while the history is read is not missed.
    let watch = app.tail.watch(&task).await?;
    let first = history::page(app, &task, after).await?;
    if first.events.is_empty() && is_terminal(known.state) {
        return Ok((Outcome::Served, StatusCode::NO_CONTENT.into_response()));
    }
    let (sender, frames) = Frames::new();
    let feed = Feed::new(app.clone(), task, watch, sender, after, known.run);
    let open = app.metrics.event_stream();
    app.supervisor.spawn_task("event stream", async move {
        feed.run(first).await;
        // Not with the body: a client that takes nothing could hold it for ever.
        drop((slot, open));
    });
    let head = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that collect answers would hold events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((Outcome::Served, (head, Body::new(frames)).into_response()))
}

/// Where to go on: a client that comes back says so in the header, which outdoes the address that it began with.
fn position(uri: &Uri, headers: &HeaderMap) -> Result<Option<Place>, Problem> {
    let read = |text: &str| text.parse().map(Some).map_err(|()| Problem::Position);
    if let Some(value) = headers.get("last-event-id") {
        return read(value.to_str().map_err(|_| Problem::Position)?);
    }
    let mut pairs = form_urlencoded::parse(uri.query().unwrap_or("").as_bytes());
    match pairs.find(|(name, _)| name == "after") {
        Some((_, text)) => read(&text),
        None => Ok(None),
    }
}
