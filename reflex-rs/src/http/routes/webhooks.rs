//! `POST /v1/webhooks/{source}`: the signature of a delivery is verified on its raw bytes before its body is parsed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use contracts::events::{DeadReason, Source as SubmissionSource};
use contracts::{ids, ContractError};
use serde_json::{json, Value};

use super::accepted;
use crate::admission::{self, DeadLetterContext, DeadLetterMessage, Submission};
use crate::blocking::run_sized;
use crate::http::extract::{self, single_header};
use crate::http::{App, Problem};
use crate::outcome::Outcome;
use crate::submit::{Context, Record, Refusals, Requirements};
use crate::webhooks::signatures::{Delivery, EventField, Forms, SignedId};
use crate::webhooks::{self, Mapped, MediaType, Secrets, Source, Unmapped};

/// Length limit of a delivery id. Together with the source's name it must fit into an idempotency key.
const MAX_ID_LENGTH: usize = 180;

/// A delivery whose signature is verified.
struct Verified<'a> {
    name: &'a str,
    source: &'a Source,
    headers: &'a HeaderMap,
    media_type: MediaType,
    body: Bytes,
    signed_id: SignedId<'a>,
}

/// What a verified delivery becomes.
enum Received {
    Submission(Submission, Requirements),
    Ignored(Unmapped),
    /// The sender checks the address and expects this text back.
    Challenge(String),
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
    let delivery = (name.as_str(), source);
    // Held until the response.
    let slot = app.submission_slots.try_acquire();
    let verified = match &slot {
        Ok(_) => verify(&app, delivery, &head.headers, body, &mut record).await,
        Err(_) => Err(Problem::TooManySubmissions),
    };
    let verified = match verified {
        Ok(verified) => verified,
        Err(problem) => {
            record.finish(&problem.final_outcome());
            return Err(problem);
        }
    };
    let map = || verified.map(&app, traceparent.clone());
    let result = match run_sized(verified.body.len(), map).await {
        Ok(Received::Submission(submission, requirements)) => {
            let service = &app.service;
            let submitted = service.submit(record, &source.caller, submission, requirements);
            let accepted = submitted
                .await
                .map(|stored| accepted(&app, &source.caller, &stored));
            accepted.map_err(Problem::from)
        }
        Ok(Received::Ignored(reason)) => {
            record.finish(&Outcome::Ignored.into());
            Ok(Json(json!({ "ignored": reason.to_string() })).into_response())
        }
        Ok(Received::Challenge(challenge)) => {
            record.finish(&Outcome::AddressChecked.into());
            Ok(Json(json!({ "challenge": challenge })).into_response())
        }
        Err(problem) => {
            record.finish(&problem.final_outcome());
            Err(problem)
        }
    };
    match result {
        Ok(response) => Ok(answer(response, verified.is_answered_without_body())),
        Err(problem) => {
            verified.keep(&app, &problem, traceparent).await?;
            Err(problem)
        }
    }
}

/// Answers a delivery. `silent`: with 200 and no body, because the sender would show the body to a person.
fn answer(mut answer: Response, silent: bool) -> Response {
    if !silent {
        return answer;
    }
    let mut empty = StatusCode::OK.into_response();
    if let Some(url) = answer.headers_mut().remove(header::LOCATION) {
        empty.headers_mut().insert(header::LOCATION, url);
    }
    empty
}

/// Reads the body and verifies its signature.
async fn verify<'a>(
    app: &App,
    (name, source): (&'a str, &'a Source),
    headers: &'a HeaderMap,
    body: Body,
    record: &mut Record,
) -> Result<Verified<'a>, Problem> {
    let keys = match &source.secrets {
        Secrets::Keys(keys) => keys,
        Secrets::NotConfigured(expected) => {
            return Err(Problem::SourceNotConfigured(expected.clone()))
        }
    };
    extract::require_identity(headers)?;
    let takes_forms = source.verifier.forms() != Forms::Refused;
    let media_type = MediaType::new(extract::media_type(headers))
        .filter(|media| *media == MediaType::Json || takes_forms)
        .ok_or(Problem::UnsupportedMediaType(if takes_forms {
            "application/json, application/x-www-form-urlencoded"
        } else {
            "application/json"
        }))?;
    let body = extract::bytes(app, headers, body).await?;
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
    let signed_id = run_sized(body.len(), verify)
        .await
        .map_err(Problem::Signature)?;
    Ok(Verified {
        name,
        source,
        headers,
        media_type,
        body,
        signed_id,
    })
}

impl Verified<'_> {
    fn is_answered_without_body(&self) -> bool {
        let verifier = &self.source.verifier;
        self.media_type == MediaType::Form && verifier.forms() == Forms::PayloadOrFields
    }

    /// Maps the delivery to a submission.
    fn map(&self, app: &App, traceparent: String) -> Result<Received, Problem> {
        let verifier = &self.source.verifier;
        let payload = self.media_type.parse(&self.body, verifier.forms())?;
        if let Some(challenge) = verifier.challenge(&payload) {
            return Ok(Received::Challenge(challenge.to_owned()));
        }
        let event = self.event(&payload)?;
        let Some(mapping) = self.source.events.get(event) else {
            return Ok(Received::Ignored(Unmapped::Event));
        };
        let body: Bytes = match webhooks::submission(mapping, &payload)? {
            Mapped::Submission(submission) => submission.into(),
            Mapped::Ignored(reason) => return Ok(Received::Ignored(reason)),
        };
        // With a space, which no producer's key can contain: nobody can take a delivery's key before it arrives. Under a signed
        // id only the submission must stay the same: a sender may count its attempts in the payload.
        let name = self.name;
        let (key, received) = if let Some(id) = self.signed_id(&payload)? {
            (format!("webhook {name} {id}"), None)
        } else {
            let digest = ids::sha256_hex(&self.body);
            (
                format!("webhook {name} sha256:{digest}"),
                Some(self.body.clone()),
            )
        };
        let submission = Submission {
            source: SubmissionSource::Webhook,
            body,
            received,
            idempotency_key: Some(key),
            traceparent,
            tenant_mismatch: false,
        };
        let requirements = Requirements {
            durability: extract::durability(app, self.headers)?,
            // Most senders do not show their users what was answered, and do not send a refused delivery again.
            refusals: Refusals::Store,
        };
        Ok(Received::Submission(submission, requirements))
    }

    /// Keeps a delivery that can never become a task as a dead letter: most senders show nobody what was answered.
    async fn keep(&self, app: &App, problem: &Problem, traceparent: String) -> Result<(), Problem> {
        let reason = match problem.outcome() {
            Outcome::Malformed => DeadReason::Malformed,
            Outcome::Schema => DeadReason::Schema,
            _ => return Ok(()),
        };
        let (service, tenant) = (&app.service, &self.source.caller.tenant);
        let address = format!("/v1/webhooks/{}", self.name);
        let digest = ids::sha256_hex(&self.body);
        let context = DeadLetterContext {
            tenant,
            stream: &address,
            group: "",
            entry: &digest,
            consumer: "",
            delivery: 1,
            message_type: b"",
            body: &self.body,
            original: &self.body,
            max_original_bytes: app.limits.body_bytes,
            now_ms: service.lookup.store.now_ms()?,
        };
        let build = || {
            let lane = service.topology.lane_for(tenant.as_str(), &digest);
            let detail = problem.detail();
            DeadLetterMessage::new(&context, reason, &detail, &service.rules, lane, traceparent)
        };
        let message = run_sized(self.body.len(), build).await?;
        Ok(service.lookup.store.publish_dead_letter(&message).await?)
    }

    /// Returns the event's name.
    fn event<'p>(&'p self, payload: &'p Value) -> Result<&'p str, Problem> {
        let fields = self.source.event_fields();
        let found = fields.iter().find_map(|field| match *field {
            EventField::Header(name) => single_header(self.headers, name),
            EventField::Body(pointer) => payload.pointer(pointer).and_then(Value::as_str),
            EventField::Name(name) => Some(name),
        });
        let missing = || match fields.first() {
            Some(EventField::Header(name)) => Problem::MissingHeader((*name).to_owned()),
            Some(EventField::Body(pointer)) => {
                let rule = "must be the name of the event, a text that is not empty";
                ContractError::schema(*pointer, rule).into()
            }
            Some(EventField::Name(_)) | None => {
                Problem::Internal("the source does not say where the event is".to_owned())
            }
        };
        found.filter(|name| !name.is_empty()).ok_or_else(missing)
    }

    /// Returns the id that the signature covers, if there is one. It becomes part of an idempotency key.
    fn signed_id<'p>(&'p self, payload: &'p Value) -> Result<Option<&'p str>, Problem> {
        let usable = |text: &&str| {
            text.len() <= MAX_ID_LENGTH && admission::idempotency_key(text.as_bytes()).is_some()
        };
        match self.signed_id {
            SignedId::None => Ok(None),
            SignedId::Body(pointer) => {
                let found = payload.pointer(pointer).and_then(Value::as_str);
                Ok(found.filter(usable))
            }
            SignedId::Header(name) => single_header(self.headers, name)
                .filter(usable)
                .map(Some)
                .ok_or_else(|| Problem::MissingHeader(name.to_owned())),
        }
    }
}
