//! Headers of requests.

use axum::http::HeaderMap;

use crate::admission;
use crate::http::{App, Problem};
use crate::submit::Durability;
use crate::trace;

/// Requires more durability than the deployment does.
const DURABILITY: &str = "octollm-durability";

/// Returns a header that occurs once and is text.
pub(in crate::http) fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    match values.next() {
        None => first.to_str().ok(),
        Some(_) => None,
    }
}

/// Returns the `Idempotency-Key`, if there is one. Fails if it is invalid or repeated.
pub(in crate::http) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if !headers.contains_key("idempotency-key") {
        return Ok(None);
    }
    single_header(headers, "idempotency-key")
        .and_then(|key| admission::idempotency_key(key.as_bytes()))
        .map(|key| Some(key.to_owned()))
        .ok_or(Problem::InvalidIdempotencyKey)
}

/// Returns the durability that the deployment and the header `OctoLLM-Durability` require together.
pub(in crate::http) fn durability(app: &App, headers: &HeaderMap) -> Result<Durability, Problem> {
    let config = &app.service.config;
    if !headers.contains_key(DURABILITY) {
        return Ok(config.durability);
    }
    single_header(headers, DURABILITY)
        .and_then(|text| Durability::parse(text, config.replicas))
        .map(|required| config.durability.and(required))
        .ok_or(Problem::InvalidDurability)
}

/// Returns the client's `traceparent` if it is valid, else a new one.
pub(in crate::http) fn traceparent(headers: &HeaderMap) -> Result<String, Problem> {
    let given = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    Ok(trace::accept_or_generate(given)?)
}
