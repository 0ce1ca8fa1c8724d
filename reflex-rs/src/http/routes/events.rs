//! `GET /v1/tasks/{id}/events`: a task's events as server-sent events.
//!
//! An event's id is `<run>-<seq>`. A client that reconnects with the last id it received misses nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{header, HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bus::random_part;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{once, StreamExt};

use super::record;
use crate::caller::{Caller, Scope};
use crate::events::{page, Feed, Frame};
use crate::http::extract::{task_id, Authorized, Read};
use crate::http::{App, Problem};
use crate::metrics::Route;
use crate::outcome::Outcome;
use crate::store::{is_terminal, EventId};

/// Frames that may wait for a slow client before its feed waits too.
const BUFFER: usize = 32;
/// How long a client waits before it reconnects, and the random part of it. After a restart all clients come back, and not
/// all in one moment.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_JITTER: Duration = Duration::from_secs(2);
/// The same for a client whose stream cannot begin now.
const BUSY_RETRY: Duration = Duration::from_secs(3);
const BUSY_RETRY_JITTER: Duration = Duration::from_secs(7);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Begins an event stream; answers 204 if nothing is left to send.
pub(in crate::http) async fn stream(
    State(app): State<Arc<App>>,
    authorized: Result<Authorized<Read>, Problem>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let result = match authorized {
        Ok(Authorized { caller, .. }) => {
            let request = begin(&app, &caller, id, &uri, &headers);
            record(&app, Route::Events, &caller, request).await
        }
        Err(problem) => Err(problem),
    };
    let document = result.as_ref().err().and_then(Problem::transient_document);
    match document {
        Some(document) if accepts_events(&headers) => Ok(unavailable(&document)),
        _ => result,
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.contains("text/event-stream"))
    })
}

/// An event stream that ends with the problem. A browser never reconnects after another status than 200.
fn unavailable(problem: &Value) -> Response {
    let retry = BUSY_RETRY + random_part(BUSY_RETRY_JITTER);
    let event = Event::default()
        .retry(retry)
        .event("unavailable")
        .json_data(problem);
    (no_buffering(), Sse::new(once(event))).into_response()
}

async fn begin(
    app: &App,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Outcome, Response), Problem> {
    let task = task_id(id)?;
    let last = last_event_id(uri, headers)?;
    let slot = Arc::clone(&app.event_slots)
        .try_acquire_owned()
        .map_err(|_| Problem::TooManyEventStreams)?;
    let lookup = &app.service.lookup;
    let known = lookup.summary(caller, &task).await?;
    // In this order, so that events published while the history is read are not missed.
    let watch = lookup.store.watch(&task).await?;
    let first = page(lookup, caller, &task, last).await?;
    if first.events.is_empty() && is_terminal(known.state) {
        return Ok((Outcome::Served, StatusCode::NO_CONTENT.into_response()));
    }
    let (out, frames) = mpsc::channel(BUFFER);
    let feed = Feed {
        lookup: lookup.clone(),
        caller: caller.clone(),
        task,
        watch,
        out,
        stop: app.supervisor.stop(),
        last,
        run: known.run,
    };
    let open = app.metrics.event_stream();
    let (authenticator, caller) = (Arc::clone(&app.authenticator), caller.clone());
    app.supervisor.spawn_task("event stream", async move {
        tokio::select! {
            () = feed.run(first) => {}
            // Its client reconnects and learns the reason.
            refusal = authenticator.until_refused(&caller, Scope::Read) => {
                let (tenant, credential) = (caller.tenant.as_str(), caller.credential.name());
                tracing::info!(tenant, credential, %refusal, "ended an event stream because of its credential");
            }
        }
        // The slot belongs to the feed, not to the body: a client that reads nothing could keep the body for ever.
        drop((slot, open));
    });
    Ok((Outcome::Served, response(frames)))
}

fn response(frames: mpsc::Receiver<Frame>) -> Response {
    let retry = once(Ok(Event::default().retry(RETRY + random_part(RETRY_JITTER))));
    let events = ReceiverStream::new(frames).map(|frame| server_sent(&frame));
    let sse = Sse::new(retry.chain(events))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"));
    (no_buffering(), sse).into_response()
}

fn no_buffering() -> [(HeaderName, &'static str); 2] {
    [
        (header::CACHE_CONTROL, "no-store"),
        // Stops proxies from buffering the response.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ]
}

fn server_sent(frame: &Frame) -> Result<Event, axum::Error> {
    match frame {
        Frame::Event(event) => Event::default()
            .id(EventId::of(event).to_string())
            .event(event.event.as_str())
            .json_data(event),
        // Without an id: it does not change where a reconnect continues.
        Frame::Waiting(notice) => Event::default().event("waiting").json_data(notice),
    }
}

/// Returns the last event that the client has. A reconnecting client sends it as a header, which takes precedence over the
/// query that it started with.
fn last_event_id(uri: &Uri, headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let parse = |text: &str| {
        text.parse()
            .map(Some)
            .map_err(|()| Problem::InvalidLastEventId)
    };
    if let Some(value) = headers.get("last-event-id") {
        return parse(value.to_str().map_err(|_| Problem::InvalidLastEventId)?);
    }
    let mut pairs = form_urlencoded::parse(uri.query().unwrap_or("").as_bytes());
    match pairs.find(|(name, _)| name == "after") {
        Some((_, text)) => parse(&text),
        None => Ok(None),
    }
}
