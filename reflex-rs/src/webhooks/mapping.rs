//! Turns a verified payload into a submission, as its source's mapping says. Pure.

use contracts::events::Object;
use contracts::webhooks::Mapping;
use contracts::ContractError;
use serde_json::{json, Value};

/// What a payload becomes.
#[derive(Debug, PartialEq)]
pub enum Mapped {
    /// A `task.submission.v1` as JSON text.
    Submission(Vec<u8>),
    Ignored(Unmapped),
}

/// Why an event becomes no task; for the sender to read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    #[error("this source maps no event of that name")]
    Event,
    #[error("the value at {0} is none of those that this source takes")]
    Value(String),
}

/// The submission that `payload` becomes; the error names the place that is missing.
pub fn submission(mapping: &Mapping, payload: &Value) -> Result<Mapped, ContractError> {
    for (place, values) in &mapping.only {
        let fits = place
            .find(payload)
            .is_some_and(|found| values.contains(found));
        if !fits {
            return Ok(Mapped::Ignored(Unmapped::Value(place.as_str().to_owned())));
        }
    }
    let mut input = Object::new();
    for (name, place) in &mapping.input {
        match place.find(payload) {
            Some(value) => {
                input.insert(name.clone(), value.clone());
            }
            None if mapping.optional.contains(name) => {}
            None => {
                return Err(ContractError::schema(
                    place.as_str(),
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
            Ok(Mapped::Ignored(Unmapped::Value(place))) => Err(format!("ignored {place}")),
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
    fn the_shipped_source_takes_what_it_names_and_no_more() {
        let wanted = json!({
            "action": "opened", "repository": "a/b", "number": 7, "title": "t", "body": "b", "author": "ada", "url": "u",
        });
        assert_eq!(mapped(&payload()), Ok(wanted));
    }

    #[test]
    fn null_counts_as_missing_and_only_optional_input_may_be() {
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
