//! Parses the body of a verified delivery, JSON or a form, to one JSON value. Pure.

use contracts::{strict_json, ContractError};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::signatures::Forms;
use crate::byte_order::without_mark;

/// What a delivery's `Content-Type` says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    Json,
    Form,
}

impl MediaType {
    /// Reads a media type without its parameters. `None` if webhooks cannot have it.
    #[must_use]
    pub fn new(essence: &str) -> Option<Self> {
        if essence.eq_ignore_ascii_case("application/json") {
            return Some(Self::Json);
        }
        let form = "application/x-www-form-urlencoded";
        essence.eq_ignore_ascii_case(form).then_some(Self::Form)
    }

    /// Parses a body of this type. `forms`: how the source's scheme reads a form.
    pub fn parse(self, body: &[u8], forms: Forms) -> Result<Value, ContractError> {
        match self {
            Self::Json => json(body),
            Self::Form => form(body, forms),
        }
    }
}

/// Some senders begin with a byte order mark, which RFC 8259 lets a parser ignore.
fn json(body: &[u8]) -> Result<Value, ContractError> {
    let body = without_mark(body)?;
    strict_json::check(body)?;
    serde_json::from_slice(body).map_err(|_| ContractError::malformed("the body is not JSON"))
}

fn form(body: &[u8], forms: Forms) -> Result<Value, ContractError> {
    let body = std::str::from_utf8(body)
        .map_err(|_| ContractError::malformed("the form is not UTF-8 text"))?;
    let mut fields = Map::new();
    for pair in body.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // With two values it is not clear which one the sender means.
        if fields
            .insert(decode(name)?, decode(value)?.into())
            .is_some()
        {
            return Err(ContractError::malformed(
                "the form has a field twice; send each field once",
            ));
        }
    }
    match (fields.get("payload"), forms) {
        (Some(Value::String(payload)), _) => json(payload.as_bytes()),
        (_, Forms::PayloadOrFields) => Ok(Value::Object(fields)),
        _ => Err(ContractError::schema(
            "payload",
            "is missing; the form must have this field, with JSON",
        )),
    }
}

fn decode(text: &str) -> Result<String, ContractError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| ContractError::malformed("the form is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Forms, MediaType};

    #[test]
    fn only_json_and_forms_are_media_types_of_webhooks() {
        for (essence, found) in [
            ("application/json", Some(MediaType::Json)),
            ("Application/JSON", Some(MediaType::Json)),
            ("application/x-www-form-urlencoded", Some(MediaType::Form)),
            ("multipart/form-data", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(MediaType::new(essence), found, "{essence}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_ignored_and_json_is_strict() {
        let parse = |body: &[u8]| MediaType::Json.parse(body, Forms::Refused);
        let marked = parse(b"\xef\xbb\xbf{\"a\": 1}");
        assert_eq!(marked.unwrap(), json!({"a": 1}));
        for wrong in [
            &b""[..],
            b"\xef\xbb\xbf",
            b"{\"a\": 1, \"a\": 2}",
            b"payload=%7B%7D",
        ] {
            assert!(parse(wrong).is_err());
        }
    }

    #[test]
    fn a_form_has_one_payload_with_strict_json() {
        let parse = |body: &str| MediaType::Form.parse(body.as_bytes(), Forms::Payload);
        let payload = parse("a=1&payload=%7B%22text%22%3A+%22a%2Bb+%C3%BC%22%7D");
        assert_eq!(payload.unwrap(), json!({"text": "a+b ü"}));
        for (wrong, said) in [
            ("payload=%7B%7D&payload=%7B%7D", "twice"),
            ("payload=%7B%7D&pay%6Coad=1", "twice"),
            ("payload=%7B%22a%22%3A1%2C%22a%22%3A2%7D", "a"),
            ("payload=%FF", "UTF-8"),
            ("payload=", "JSON"),
            ("text=hello", "payload"),
            ("", "payload"),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
        assert!(MediaType::Form
            .parse(b"payload=\xff", Forms::Payload)
            .is_err());
    }

    #[test]
    fn only_where_the_scheme_says_so_the_fields_of_a_form_are_the_payload() {
        let body = b"command=%2Fweather&text=&user";
        let fields = MediaType::Form.parse(body, Forms::PayloadOrFields);
        assert_eq!(
            fields.unwrap(),
            json!({"command": "/weather", "text": "", "user": ""})
        );
        let payload = MediaType::Form.parse(b"payload=%7B%7D", Forms::PayloadOrFields);
        assert_eq!(payload.unwrap(), json!({}));
    }
}
