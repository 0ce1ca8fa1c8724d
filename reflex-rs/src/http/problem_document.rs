//! A problem document (RFC 9457): what a response with an error consists of.

use std::borrow::Cow;

use axum::http::{header, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use contracts::events::TaskId;
use serde_json::{json, Value};

use crate::kinds::Violation;
use crate::outcome::Outcome;
use crate::quotas::Fields;
use crate::request_id;

/// The fields of draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// One row of the table of problems.
pub(super) struct Row<'a> {
    pub(super) status: StatusCode,
    pub(super) outcome: Outcome,
    pub(super) detail: Cow<'a, str>,
    /// The field, header or parameter that the problem is about.
    pub(super) field: Option<Cow<'a, str>>,
    /// All rules that the body breaks.
    pub(super) errors: &'a [Violation],
    /// The task that may be stored nevertheless.
    pub(super) task: Option<&'a TaskId>,
    /// The quota that the request exceeds, as the field `RateLimit` names it.
    pub(super) violated_policy: Option<String>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl<'a> Row<'a> {
    pub(super) fn new(
        status: StatusCode,
        outcome: Outcome,
        detail: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            status,
            outcome,
            detail: detail.into(),
            field: None,
            errors: &[],
            task: None,
            violated_policy: None,
            headers: Vec::new(),
        }
    }

    pub(super) fn field(mut self, field: impl Into<Cow<'a, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub(super) fn errors(mut self, errors: &'a [Violation]) -> Self {
        self.field = errors.first().map(|first| first.field().into());
        self.errors = errors;
        self
    }

    pub(super) fn task(mut self, task: &'a TaskId) -> Self {
        self.task = Some(task);
        self
    }

    /// Says with which credential the request can succeed.
    pub(super) fn challenge(mut self, challenge: String) -> Self {
        // Challenges are ASCII, so this never fails.
        if let Ok(value) = HeaderValue::try_from(challenge) {
            self.headers.push((header::WWW_AUTHENTICATE, value));
        }
        self
    }

    pub(super) fn retry_after(mut self, seconds: impl Into<HeaderValue>) -> Self {
        let seconds = seconds.into();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            self.headers.extend(capacity(&seconds));
        }
        self.headers.push((header::RETRY_AFTER, seconds));
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    pub(super) fn rate_limit(mut self, fields: &Fields) -> Self {
        self.headers.extend(rate_limit(fields));
        self
    }

    pub(super) fn violated_policy(mut self, name: String) -> Self {
        self.violated_policy = Some(name);
        self
    }
}

/// The header that tells a caller that the program, not its quota, is the limit.
fn capacity(retry_after: &HeaderValue) -> Option<(HeaderName, HeaderValue)> {
    let text = format!("\"capacity\";r=0;t={}", retry_after.to_str().ok()?);
    Some((RATE_LIMIT, text.parse().ok()?))
}

/// The headers that tell a caller about its quotas.
pub(super) fn rate_limit(fields: &Fields) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let header = |name, text: &str| Some((name, text.parse().ok()?));
    let policy = header(RATE_LIMIT_POLICY, &fields.policy);
    let state = header(RATE_LIMIT, &fields.state);
    policy.into_iter().chain(state)
}

impl Row<'_> {
    /// The problem document.
    pub(super) fn document(&self) -> Value {
        let row = self;
        let mut body = json!({
            "type": format!("urn:octollm:problem:{}", row.outcome.as_str()),
            "title": row.status.canonical_reason(),
            "status": row.status.as_u16(),
            "detail": row.detail,
        });
        if let Some(field) = &row.field {
            body["field"] = field.as_ref().into();
        }
        if !row.errors.is_empty() {
            body["errors"] = json!(row.errors);
        }
        if let Some(task) = row.task {
            body["task"] = task.as_str().into();
        }
        if let Some(name) = &row.violated_policy {
            // The member's name is the draft's.
            body["violated-policies"] = json!([name]);
        }
        let id = request_id::current();
        if let Some(id) = id.as_ref().and_then(request_id::text) {
            body["request_id"] = id.into();
        }
        body
    }
}

impl IntoResponse for Row<'_> {
    fn into_response(self) -> Response {
        let body = self.document();
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, content_type, body.to_string()).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}
