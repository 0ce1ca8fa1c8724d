//! `POST /v1/webhooks/{source}`: a delivery is proven on its raw bytes before anything of it is read.

use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::Source;
use contracts::{ids, strict_json, ContractError};
use serde_json::{json, Value};

use super::taking::{self, About, Taken};
use super::{durable, App, Problem};
use crate::admission::signatures::{Delivery, Key, Place, Unproven, Verifier};
use crate::admission::{self, Arrival};
use crate::metrics::{Door, Outcome};
use crate::webhooks::{self, Mapped, Opened, Unmapped};

/// Longest delivery id; with the source's name it has to fit an idempotency key.
const LONGEST_ID: usize = 180;

/// What became of a proven delivery.
enum Received {
    Taken(Taken),
    Ignored(Unmapped),
}

/// Takes a delivery, or says why not; counts and logs it, whatever comes of it.
pub(super) async fn receive(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let found = name
        .ok()
        .and_then(|Path(name)| app.sources.get_key_value(&name));
    let Some((name, source)) = found else {
        app.metrics
            .ended(Door::Webhook, Outcome::Source, Duration::ZERO);
        return Err(Problem::Source);
    };
    let (head, body) = request.into_parts();
    let traceparent = taking::traceparent(&head.headers)?;
    let read = match &source.secrets {
        Opened::Keys(keys) => taking::read_body(&app, &head.headers, body)
            .await
            .map(|body| (keys, body)),
        Opened::Closed(missed) => Err(Problem::Closed(missed.clone())),
    };
    let arrived = Instant::now();
    let proven = read.and_then(|(keys, body)| {
        prove(source.verifier, keys, &head.headers, &body).map_err(Problem::Unproven)?;
        Ok(body)
    });
    let received = match proven {
        Ok(body) => take(&app, (name, source), &head.headers, &body, &traceparent).await,
        Err(problem) => Err(problem),
    };
    let ended = received.as_ref().map(|received| match received {
        Received::Taken(taken) if taken.duplicate => {
            (Outcome::Duplicate, Some(taken.task.as_str()))
        }
        Received::Taken(taken) => (Outcome::Accepted, Some(taken.task.as_str())),
        Received::Ignored(_) => (Outcome::Ignored, None),
    });
    let about = About {
        door: Door::Webhook,
        tenant: &source.tenant,
        traceparent: &traceparent,
        source: Some(name),
        arrived,
    };
    taking::report(&app, &about, ended);
    Ok(match received? {
        Received::Taken(taken) => taking::accepted(&source.tenant, &taken),
        Received::Ignored(why) => {
            (StatusCode::OK, Json(json!({ "ignored": why.to_string() }))).into_response()
        }
    })
}

/// Takes a proven delivery.
async fn take(
    app: &App,
    (name, source): (&str, &webhooks::Source),
    headers: &HeaderMap,
    body: &[u8],
    traceparent: &str,
) -> Result<Received, Problem> {
    let payload = payload(body)?;
    let event = at(source.verifier.event(), headers, &payload)?;
    let Some(mapping) = source.events.get(event) else {
        return Ok(Received::Ignored(Unmapped::Event));
    };
    let submission = match webhooks::submission(mapping, &payload).map_err(Problem::Contract)? {
        Mapped::Submission(submission) => submission,
        Mapped::Ignored(why) => return Ok(Received::Ignored(why)),
    };
    let id = at(source.verifier.delivery_id(), headers, &payload)?;
    let key = format!("webhook:{name}:{id}");
    let arrival = Arrival {
        body: &submission,
        received: body,
        tenant: &source.tenant,
        source: Source::Webhook,
        key: Some(&key),
        traceparent,
        foreign: false,
        now_ms: ids::now_ms(),
        random: ids::random().map_err(taking::no_randomness)?,
    };
    let needed = durable::needed(app, headers)?;
    taking::take(app, &arrival, needed)
        .await
        .map(Received::Taken)
}

fn prove(
    verifier: &dyn Verifier,
    keys: &[Key],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Unproven> {
    let header = |name: &str| only_one(headers, name);
    let delivery = Delivery {
        header: &header,
        body,
        now_s: ids::now_ms() / 1000,
    };
    verifier.verify(&delivery, keys)
}

fn payload(body: &[u8]) -> Result<Value, Problem> {
    strict_json::check(body).map_err(Problem::Contract)?;
    serde_json::from_slice(body)
        .map_err(|_| Problem::Contract(ContractError::unreadable("the body is no JSON")))
}

/// What a scheme keeps at a place, fit to be part of a key.
fn at<'a>(place: Place, headers: &'a HeaderMap, payload: &'a Value) -> Result<&'a str, Problem> {
    let (found, problem) = match place {
        Place::Header(name) => (only_one(headers, name), Problem::Header(name)),
        Place::Body(pointer) => {
            let found = payload.pointer(pointer).and_then(Value::as_str);
            let must = format!("must be a text of 1 to {LONGEST_ID} visible ASCII characters");
            (
                found,
                Problem::Contract(ContractError::schema(pointer, must)),
            )
        }
    };
    found
        .filter(|text| text.len() <= LONGEST_ID)
        .filter(|text| admission::idempotency_key(text.as_bytes()).is_some())
        .ok_or(problem)
}

/// A header that stands there once, as text.
fn only_one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.next().is_none().then(|| first.to_str().ok()).flatten()
}
