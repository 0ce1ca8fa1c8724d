//! One rule that a submission breaks, as its sender sees it. Names what is wrong and what is expected; never quotes a value.

use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::ValidationError;
use serde::Serialize;
use serde_json::Value;

use super::near_miss::nearest;

/// How much of a pointer is shown. Its names are the sender's and can have any length.
const MAX_POINTER_CHARS: usize = 300;
/// How many bytes of JSON `expected` may have; a longer one is left out.
const MAX_EXPECTED_BYTES: usize = 1000;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON pointer into the submission: where the value is, or where it should be.
    pub pointer: String,
    /// The keyword of JSON Schema, like `required` or `maxLength`.
    pub rule: String,
    /// What the keyword says; for an unexpected property, the names that are allowed there.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub expected: Value,
    /// The type of what was found: one of JSON's, `integer`, or `missing`.
    pub got_type: &'static str,
    /// The name or word that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
}

impl Violation {
    pub(super) fn new(pointer: &str, rule: &str, expected: Value, got_type: &'static str) -> Self {
        let fits = expected.to_string().len() <= MAX_EXPECTED_BYTES;
        Self {
            pointer: shortened(pointer),
            rule: rule.to_owned(),
            expected: if fits { expected } else { Value::Null },
            got_type,
            did_you_mean: None,
        }
    }

    /// The violations that one error of the validator stands for: one for each unexpected property, else one.
    ///
    /// `schema`: the whole schema. The instance is the task's input.
    pub(super) fn of_error(error: &ValidationError<'_>, schema: &Value) -> Vec<Self> {
        let place = format!("/input{}", error.instance_path().as_str());
        let keyword = error.kind().keyword();
        let instance = error.instance();
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let pointer = format!("{place}/{}", escaped(name));
                vec![Self::new(&pointer, keyword, property.clone(), "missing")]
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = neighbour(schema, error.schema_path().as_str(), "properties");
                let known: Vec<&str> = known
                    .and_then(Value::as_object)
                    .map(|properties| properties.keys().map(String::as_str).collect())
                    .unwrap_or_default();
                let violation = |name: &String| Self {
                    did_you_mean: nearest(name, known.iter().copied()),
                    ..Self::new(
                        &format!("{place}/{}", escaped(name)),
                        keyword,
                        known.clone().into(),
                        instance.get(name).map_or("missing", type_of),
                    )
                };
                unexpected.iter().map(violation).collect()
            }
            ValidationErrorKind::Enum { options } => {
                let words = options.as_array().into_iter().flatten();
                let given = instance.as_str();
                vec![Self {
                    did_you_mean: given
                        .and_then(|given| nearest(given, words.filter_map(Value::as_str))),
                    ..Self::new(&place, keyword, Value::clone(options), type_of(instance))
                }]
            }
            _ => {
                let expected = schema.pointer(error.schema_path().as_str());
                let expected = expected.cloned().unwrap_or_default();
                vec![Self::new(&place, keyword, expected, type_of(instance))]
            }
        }
    }

    /// What is expected, in words; nothing if it would be too long.
    #[must_use]
    pub fn expected_words(&self) -> Option<String> {
        (!self.expected.is_null()).then(|| words(&self.expected))
    }

    /// The place as other errors name it, like `input.title`.
    #[must_use]
    pub fn field(&self) -> String {
        let parts = self.pointer.split('/').skip(1);
        let parts: Vec<String> = parts.map(unescaped).collect();
        parts.join(".")
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.field();
        match self.rule.as_str() {
            "required" => write!(out, "{place} is missing")?,
            "additionalProperties" | "unevaluatedProperties" => {
                write!(out, "{place} is not an allowed property")?;
            }
            "type" => write!(
                out,
                "{place} must be of type {}, not {}",
                words(&self.expected),
                self.got_type
            )?,
            rule if self.expected.is_null() => write!(out, "{place} breaks the rule {rule}")?,
            rule => write!(
                out,
                "{place} breaks the rule {rule}: {}",
                words(&self.expected)
            )?,
        }
        match &self.did_you_mean {
            Some(name) => write!(out, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

/// The keyword next to the one at a place in a schema.
fn neighbour<'a>(schema: &'a Value, place: &str, keyword: &str) -> Option<&'a Value> {
    let (parent, _) = place.rsplit_once('/')?;
    schema.pointer(&format!("{parent}/{keyword}"))
}

/// A value for people: words without quotes, a list of them with commas.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(words).collect();
            items.join(", ")
        }
        other => other.to_string(),
    }
}

pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

fn shortened(pointer: &str) -> String {
    match pointer.char_indices().nth(MAX_POINTER_CHARS) {
        Some((at, _)) => format!("{}…", &pointer[..at]),
        None => pointer.to_owned(),
    }
}
