//! `POST /v1/tasks:batch`: submits several tasks with one request. Each item is a submission of its own, with its own result.

mod items;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::Source;
use contracts::ContractError;
use futures_util::stream::{self, StreamExt};
use serde_json::{json, Value};

use self::items::{Form, Item};
use super::{accepted_body, record};
use crate::admission::Submission;
use crate::blocking::run_sized;
use crate::caller::Caller;
use crate::http::extract::{self, Authorized, Submit};
use crate::http::{App, Problem};
use crate::metrics::Route;
use crate::outcome::Outcome;
use crate::submit::{Context, Record, Refusals, Requirements};

/// Items of one batch that are handled at once. They share the calls of the group commit.
const CONCURRENT: usize = 32;
const MEDIA_TYPES: &str = "application/json, application/x-ndjson";

/// Answers 200 with the results in the order of the items.
pub(in crate::http) async fn submit(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Submit>,
    request: Request,
) -> Result<Response, Problem> {
    let batch = submit_all(&app, &caller, request);
    record(&app, Route::Batch, &caller, batch).await
}

/// What all items of a batch share.
struct Shared<'a> {
    app: &'a App,
    caller: &'a Caller,
    context: Context,
    requirements: Requirements,
}

async fn submit_all(
    app: &App,
    caller: &Caller,
    request: Request,
) -> Result<(Outcome, Response), Problem> {
    let _slot = app
        .submission_slots
        .try_acquire()
        .map_err(|_| Problem::TooManySubmissions)?;
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    let form = form(headers)?;
    if headers.contains_key("idempotency-key") {
        let rule = "give each item of a batch its own idempotency_key";
        return Err(ContractError::schema("Idempotency-Key", rule).into());
    }
    let shared = Shared {
        app,
        caller,
        context: Context {
            source: Source::Http,
            caller: caller.clone(),
            traceparent: extract::traceparent(headers)?,
            webhook: None,
            entry: None,
        },
        requirements: Requirements {
            durability: extract::durability(app, headers)?,
            refusals: Refusals::Return,
        },
    };
    let body = extract::bytes(app, headers, body).await?;
    let items = run_sized(body.len(), || items::read(&body, form)).await?;
    let results: Vec<_> = stream::iter(items)
        .map(|item| shared.submit(item))
        .buffered(CONCURRENT)
        .collect()
        .await;
    Ok((Outcome::Served, response(results)))
}

fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    match extract::media_type(headers).to_ascii_lowercase().as_str() {
        "application/json" => Ok(Form::Array),
        "application/x-ndjson" => Ok(Form::Lines),
        _ => Err(Problem::UnsupportedMediaType(MEDIA_TYPES)),
    }
}

impl Shared<'_> {
    /// Submits one item. Returns the body that a submission of its own is answered with, and its status.
    async fn submit(&self, item: Result<Item, ContractError>) -> (StatusCode, Value) {
        let record = Record::new(Arc::clone(&self.app.metrics), self.context.clone());
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                let problem = Problem::from(error);
                record.finish(&problem.final_outcome());
                return problem.document();
            }
        };
        let submission = Submission {
            source: Source::Http,
            received: None,
            body: item.body,
            idempotency_key: item.idempotency_key,
            traceparent: self.context.traceparent.clone(),
            tenant_mismatch: false,
        };
        let service = &self.app.service;
        let stored = service.submit(record, self.caller, submission, self.requirements);
        match stored.await {
            Ok(stored) => {
                let mut body = accepted_body(self.caller, &stored);
                body["status"] = StatusCode::ACCEPTED.as_u16().into();
                (StatusCode::ACCEPTED, body)
            }
            Err(error) => Problem::from(error).document(),
        }
    }
}

fn response(results: Vec<(StatusCode, Value)>) -> Response {
    let busy = results
        .iter()
        .any(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE);
    let items: Vec<_> = results.into_iter().map(|(_, body)| body).collect();
    let mut response = Json(json!({ "items": items })).into_response();
    if busy {
        // Some items can be sent again.
        let seconds = header::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
