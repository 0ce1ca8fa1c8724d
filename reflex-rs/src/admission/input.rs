//! Whether a submission's kind can be planned, and its input fits the kind's schema.

use contracts::events::{Kind, Object, RefusalReason, TaskSubmission};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Refusal;
use crate::kinds::{Table, Violation};

/// How long the list of violations in a refusal's sentence may get.
const MAX_DETAIL_BYTES: usize = 2000;

/// The input of a task in the form that validators take: always an object.
pub(super) struct Input(Value);

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Object::deserialize(from).map(|object| Self(Value::Object(object)))
    }
}

/// What the schema is applied to. A task without an input has an empty one.
pub(super) fn of(input: Option<&Input>) -> &Value {
    static EMPTY: std::sync::LazyLock<Value> =
        std::sync::LazyLock::new(|| Value::Object(Object::new()));
    input.map_or(&EMPTY, |input| &input.0)
}

/// Returns why a submission cannot be planned. Leaves it as it was.
pub(super) fn refusal(request: &mut TaskSubmission, kinds: &Table) -> Option<Refusal> {
    let given = request.input.take();
    let is_given = given.is_some();
    let input = Value::Object(given.unwrap_or_default());
    let kind = request.kind.as_ref().map(Kind::as_str);
    let found = kinds.violations(kind, &input);
    if let (true, Value::Object(input)) = (is_given, input) {
        request.input = Some(input);
    }
    let (reason, violations) = found?;
    Some(Refusal {
        reason,
        detail: detail(reason, &violations),
        violations,
    })
}

/// What is wrong and, where a kind is missing, which ones there are.
fn detail(reason: RefusalReason, violations: &[Violation]) -> String {
    let mut text = sentence(violations);
    if reason == RefusalReason::NeedsModel {
        text.push_str("; no model is configured to plan a task without one");
        if let Some(kinds) = violations.first().and_then(Violation::expected_words) {
            text.push_str(", so send one of ");
            text.push_str(&kinds);
        }
    }
    text
}

/// All violations that fit into one line, and how many more there are.
fn sentence(violations: &[Violation]) -> String {
    let mut text = String::new();
    for (index, violation) in violations.iter().enumerate() {
        let next = violation.to_string();
        if index > 0 && text.len() + next.len() > MAX_DETAIL_BYTES {
            let more = violations.len() - index;
            return format!("{text}; and {more} more");
        }
        if index > 0 {
            text.push_str("; ");
        }
        text.push_str(&next);
    }
    text
}
