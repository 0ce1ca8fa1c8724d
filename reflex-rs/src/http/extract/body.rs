//! Reads request bodies within the limits.

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{header, HeaderMap, HeaderName};
use contracts::events::{from_object, Object};
use contracts::{strict_json, ContractError};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::encoding::{decode, encoding};
use crate::blocking::run_sized;
use crate::byte_order::without_mark;
use crate::http::{App, Problem};

/// Reads a body of type `application/json` to its end and decodes it. Does not parse it.
pub(in crate::http) async fn json_bytes(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, Problem> {
    if !media_type(headers).eq_ignore_ascii_case("application/json") {
        return Err(Problem::UnsupportedMediaType("application/json"));
    }
    bytes(app, headers, body).await
}

/// Returns the `Content-Type` without its parameters; "" if there is none.
pub(in crate::http) fn media_type(headers: &HeaderMap) -> &str {
    let value = text(headers, &header::CONTENT_TYPE).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Reads a body of any type to its end and decodes it.
pub(in crate::http) async fn bytes(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, Problem> {
    let encoding = encoding(headers)?;
    let limit = app.limits.body_bytes;
    let announced =
        text(headers, &header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Problem::TooLarge(limit));
    }
    let timeout = app.limits.body_timeout;
    match tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await {
        Err(_) => Err(Problem::Timeout(timeout.as_secs())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::TooLarge(limit)),
        Ok(Err(_)) => Err(Problem::IncompleteBody),
        Ok(Ok(body)) => decode(encoding, body.to_bytes(), limit).await,
    }
}

/// Reads an optional body that is a JSON object of a closed schema; `None` if the request has no body.
pub(in crate::http) async fn optional_object<T: DeserializeOwned>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<T>, Problem> {
    if body.is_end_stream() {
        return Ok(None);
    }
    let body = json_bytes(app, headers, body).await?;
    let parse = || {
        let body = without_mark(&body)?;
        strict_json::check(body)?;
        let object: Object = serde_json::from_slice(body)
            .map_err(|_| ContractError::schema("", "must be an object"))?;
        from_object(object)
    };
    Ok(Some(run_sized(body.len(), parse).await?))
}
