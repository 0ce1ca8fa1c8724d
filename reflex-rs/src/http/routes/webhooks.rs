//! `POST /v1/webhooks/{source}`: the signature of a delivery is verified on its raw bytes before its body is parsed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::Source as SubmissionSource;
use contracts::{ids, strict_json, ContractError};
use serde_json::{json, Value};

use super::accepted;
use crate::admission::{self, Submission};
use crate::blocking::run_sized;
use crate::http::extract::{self, single_header};
use crate::http::{App, Problem};
use crate::outcome::Outcome;
use crate::submit::{Context, Record, Refusals, Requirements};
use crate::webhooks::signatures::{Delivery, FieldLocation};
use crate::webhooks::{self, Mapped, Secrets, Source, Unmapped};

/// Length limit of a delivery id. Together with the source's name it must fit into an idempotency key.
const MAX_ID_LENGTH: usize = 180;

/// What a verified delivery becomes.
enum Received {
    Submission(Submission, Requirements),
    Ignored(Unmapped),
}

/// Receives a delivery and submits the task that its source maps it to.
pub(in crate::http) async fn receive(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let found = name
        .ok()
        .and_then(|Path(name)| app.sources.get_key_value(&name));
    let Some((name, source)) = found else {
        app.metrics.submission_ended(
            SubmissionSource::Webhook,
            Outcome::UnknownSource,
            Duration::ZERO,
        );
        return Err(Problem::UnknownSource);
    };
    let (head, body) = request.into_parts();
    let traceparent = extract::traceparent(&head.headers)?;
    let context = Context {
        source: SubmissionSource::Webhook,
        caller: source.caller.clone(),
        traceparent: traceparent.clone(),
        webhook: Some(name.clone()),
        entry: None,
    };
    let mut record = Record::new(Arc::clone(&app.metrics), context);
    let received = match verified_body(&app, source, &head.headers, body, &mut record).await {
        Ok(body) => {
            let size = body.len();
            let map = || map(&app, (name, source), &head.headers, body, traceparent);
            run_sized(size, map).await
        }
        Err(problem) => Err(problem),
    };
    match received {
        Ok(Received::Submission(submission, requirements)) => {
            let stored = app
                .service
                .submit(record, &source.caller, submission, requirements)
                .await?;
            Ok(accepted(&source.caller, &stored))
        }
        Ok(Received::Ignored(reason)) => {
            record.finish(&Outcome::Ignored.into());
            let body = json!({ "ignored": reason.to_string() });
            Ok((StatusCode::OK, Json(body)).into_response())
        }
        Err(problem) => {
            record.finish(&problem.final_outcome());
            Err(problem)
        }
    }
}

/// Reads the body and verifies its signature.
async fn verified_body(
    app: &App,
    source: &Source,
    headers: &HeaderMap,
    body: Body,
    record: &mut Record,
) -> Result<Bytes, Problem> {
    let keys = match &source.secrets {
        Secrets::Keys(keys) => keys,
        Secrets::NotConfigured(expected) => {
            return Err(Problem::SourceNotConfigured(expected.clone()))
        }
    };
    let body = extract::json_bytes(app, headers, body).await?;
    record.received();
    let now_s = app.service.lookup.store.now_ms()? / 1000;
    let verify = || {
        let delivery = Delivery {
            header: &|name| single_header(headers, name),
            body: &body,
            now_s,
        };
        source.verifier.verify(&delivery, keys)
    };
    run_sized(body.len(), verify)
        .await
        .map_err(Problem::Signature)?;
    Ok(body)
}

/// Maps a verified delivery to a submission.
fn map(
    app: &App,
    (name, source): (&str, &Source),
    headers: &HeaderMap,
    body: Bytes,
    traceparent: String,
) -> Result<Received, Problem> {
    let payload = parse(&body)?;
    let event = value_at(source.verifier.event(), headers, &payload)?;
    let Some(mapping) = source.events.get(event) else {
        return Ok(Received::Ignored(Unmapped::Event));
    };
    let submission = match webhooks::submission(mapping, &payload)? {
        Mapped::Submission(submission) => submission,
        Mapped::Ignored(reason) => return Ok(Received::Ignored(reason)),
    };
    // With a space, which no producer's key can contain: nobody can take a delivery's key before it arrives.
    let idempotency_key = match source.verifier.signed_id() {
        Some(location) => format!("webhook {name} {}", value_at(location, headers, &payload)?),
        None => format!("webhook {name} sha256:{}", ids::sha256_hex(&body)),
    };
    let submission = Submission {
        source: SubmissionSource::Webhook,
        body: submission.into(),
        received: Some(body),
        idempotency_key: Some(idempotency_key),
        traceparent,
        tenant_mismatch: false,
    };
    let requirements = Requirements {
        durability: extract::durability(app, headers)?,
        refusals: Refusals::Return,
    };
    Ok(Received::Submission(submission, requirements))
}

fn parse(body: &[u8]) -> Result<Value, ContractError> {
    strict_json::check(body)?;
    serde_json::from_slice(body).map_err(|_| ContractError::malformed("the body is not JSON"))
}

/// Returns the value at a location. It must be short, visible ASCII, because it becomes part of an idempotency key.
fn value_at<'a>(
    location: FieldLocation,
    headers: &'a HeaderMap,
    payload: &'a Value,
) -> Result<&'a str, Problem> {
    let (found, problem) = match location {
        FieldLocation::Header(name) => (single_header(headers, name), Problem::MissingHeader(name)),
        FieldLocation::Body(pointer) => {
            let found = payload.pointer(pointer).and_then(Value::as_str);
            let rule = format!("must be a text of 1 to {MAX_ID_LENGTH} visible ASCII characters");
            (found, ContractError::schema(pointer, rule).into())
        }
    };
    found
        .filter(|text| text.len() <= MAX_ID_LENGTH)
        .filter(|text| admission::idempotency_key(text.as_bytes()).is_some())
        .ok_or(problem)
}
