//! Headers of requests.

use std::borrow::Cow;

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
        .and_then(unquoted)
        .filter(|key| admission::idempotency_key(key.as_bytes()).is_some())
        .map(|key| Some(key.into_owned()))
        .ok_or(Problem::InvalidIdempotencyKey)
}

/// Returns a key without the quotes that the IETF draft puts around it: there it is a string of RFC 9651.
/// Most clients send it without them, and it is the same key.
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else {
        return Some(value.into());
    };
    let inner = quoted.strip_suffix('"')?;
    let mut key = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        key.push(match character {
            '\\' => characters
                .next()
                .filter(|escaped| "\"\\".contains(*escaped))?,
            '"' => return None,
            plain => plain,
        });
    }
    Some(key.into())
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

#[cfg(test)]
mod tests {
    use super::unquoted;

    #[test]
    fn a_key_in_quotes_is_the_key_within() {
        for (value, key) in [
            ("k-1", Some("k-1")),
            ("\"k-1\"", Some("k-1")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (r#"a"b"#, Some(r#"a"b"#)),
            ("\"", None),
            ("\"a", None),
            ("\"a\"b\"", None),
            (r#""a\n""#, None),
            (r#""a\""#, None),
            ("\"a\";p=1", None),
        ] {
            assert_eq!(unquoted(value).as_deref(), key, "{value}");
        }
    }
}
