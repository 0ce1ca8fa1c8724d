//! Turns a verified payload into a submission by its source's mapping. Pure.

use contracts::events::Object;
use contracts::webhooks::Mapping;
use contracts::ContractError;
use serde_json::{json, Value};

/// The result of a mapping.
#[derive(Debug, PartialEq)]
pub enum Mapped {
    /// A `task.submission.v1` as JSON text.
    Submission(Vec<u8>),
    Ignored(Unmapped),
}

/// Why an event does not become a task. The sender sees the text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    #[error("this source does not map events of that name")]
    Event,
    #[error("the value at {0} is not one that this source accepts")]
    Value(String),
}

/// Maps `payload` to a `task.submission.v1`. Fails if a required value is missing; the error names its JSON pointer.
pub fn submission(mapping: &Mapping, payload: &Value) -> Result<Mapped, ContractError> {
    for (pointer, values) in &mapping.only {
        let accepted = pointer
            .find(payload)
            .is_some_and(|found| values.contains(found));
        if !accepted {
            return Ok(Mapped::Ignored(Unmapped::Value(
                pointer.as_str().to_owned(),
            )));
        }
    }
    let mut input = Object::new();
    for (name, pointer) in &mapping.input {
        match pointer.find(payload) {
            Some(value) => {
                input.insert(name.clone(), value.clone());
            }
            None if mapping.optional.contains(name) => {}
            None => {
                return Err(ContractError::schema(
                    pointer.as_str(),
                    format!("is missing; it is the task's input {name}"),
                ))
            }
        }
    }
    let submission = json!({
        "goal": mapping.goal.as_str(),
        "kind": mapping.kind.as_str(),
        "input": input,
    });
    Ok(Mapped::Submission(submission.to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{submission, Mapped, Unmapped};
    use contracts::events::{read, TaskSubmission};
    use contracts::webhooks;
    use serde_json::{json, Value};

    fn mapped(payload: &Value) -> Result<Value, String> {
        let sources = webhooks::parse(include_str!("../../../webhooks.yaml")).unwrap();
        match submission(&sources["github"].events["issues"], payload) {
            Ok(Mapped::Submission(text)) => {
                let submission: TaskSubmission = read(&text).unwrap();
                assert_eq!(submission.kind.unwrap().as_str(), "github.issues");
                Ok(Value::Object(submission.input.unwrap()))
            }
            Ok(Mapped::Ignored(Unmapped::Value(pointer))) => Err(format!("ignored {pointer}")),
            Ok(Mapped::Ignored(Unmapped::Event)) => Err("ignored".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn payload() -> Value {
        json!({
            "action": "opened",
            "issue": {"number": 7, "title": "t", "body": "b", "user": {"login": "ada"}, "html_url": "u", "id": 1},
            "repository": {"full_name": "a/b"},
        })
    }

    #[test]
    fn the_shipped_source_maps_exactly_what_it_names() {
        let wanted = json!({
            "action": "opened", "repository": "a/b", "number": 7, "title": "t", "body": "b", "author": "ada", "url": "u",
        });
        assert_eq!(mapped(&payload()), Ok(wanted));
    }

    #[test]
    fn null_counts_as_missing_and_only_optional_input_may_be_missing() {
        let mut without = payload();
        without["issue"]["body"] = Value::Null;
        let input = mapped(&without).unwrap();
        assert!(input.get("body").is_none() && input.get("title").is_some());
        without["issue"]["title"] = Value::Null;
        let missing = mapped(&without).unwrap_err();
        assert!(missing.starts_with("/issue/title: "), "{missing}");
    }

    #[test]
    fn other_values_are_ignored() {
        for action in [json!("closed"), json!(1), Value::Null] {
            let mut other = payload();
            other["action"] = action;
            assert_eq!(mapped(&other), Err("ignored /action".to_owned()));
        }
    }
}
