//! Applies the rules to every text of a submission: goal, input and metadata, both keys and values.

use std::collections::{BTreeMap, HashMap};

use contracts::events::{DigestMap, Object, TaskSubmission, Text};
use contracts::ContractError;
use serde_json::Value;

use super::rules::{Redactions, Rules};

/// Replaces personal data in every text of the submission. Returns how many pieces of each type were replaced.
pub(super) fn submission(
    submission: &mut TaskSubmission,
    rules: &Rules,
) -> Result<Redactions, ContractError> {
    let mut counts = Redactions::default();
    if let Some(goal) = rules.redacted(submission.goal.as_str(), &mut counts) {
        submission.goal = fit(goal, "goal")?;
    }
    if let Some(input) = &mut submission.input {
        object(input, rules, &mut counts);
    }
    if let Some(metadata) = submission.metadata.take() {
        let (mut clean, mut numbers) = (BTreeMap::new(), Numbers::new());
        for (key, text) in metadata.iter() {
            let text = rules.redact(text.as_str(), &mut counts);
            let key = unique_key(rules.redact(key, &mut counts), &mut numbers, |key| {
                clean.contains_key(key)
            });
            let text = fit(text, &format!("metadata.{key}"))?;
            clean.insert(key, text);
        }
        submission.metadata = Some(DigestMap::try_from(clean)?);
    }
    Ok(counts)
}

/// Redaction can make a text longer than it may be. It is refused then, and never cut.
fn fit<const MIN: usize, const MAX: usize>(
    text: String,
    field: &str,
) -> Result<Text<MIN, MAX>, ContractError> {
    text.try_into().map_err(|_| {
        let rule = format!(
            "must have at most {MAX} characters after personal data was replaced, as in [email]"
        );
        ContractError::schema(field, rule)
    })
}

/// Depth is bounded by strict JSON, so recursion is safe.
fn value(value: &mut Value, rules: &Rules, counts: &mut Redactions) {
    match value {
        Value::String(text) => {
            if let Some(clean) = rules.redacted(text, counts) {
                *text = clean;
            }
        }
        Value::Array(items) => {
            for item in items {
                self::value(item, rules, counts);
            }
        }
        Value::Object(inner) => object(inner, rules, counts),
        _ => {}
    }
}

fn object(object: &mut Object, rules: &Rules, counts: &mut Redactions) {
    let mut new_keys = Vec::with_capacity(object.len());
    for (key, inner) in &mut *object {
        value(inner, rules, counts);
        new_keys.push(rules.redacted(key, counts));
    }
    if new_keys.iter().all(Option::is_none) {
        return;
    }
    let (mut clean, mut numbers) = (Object::new(), Numbers::new());
    for ((key, inner), new_key) in std::mem::take(object).into_iter().zip(new_keys) {
        let key = unique_key(new_key.unwrap_or(key), &mut numbers, |key| {
            clean.contains_key(key)
        });
        clean.insert(key, inner);
    }
    *object = clean;
}

/// The last number appended to each key of an object.
type Numbers = HashMap<String, u64>;

/// Makes a redacted key unique within its object. Redaction can make two keys equal; the later one gets a number, so that no
/// value is lost. Numbers are never tried twice, because every key of a body may become the same.
fn unique_key(mut key: String, numbers: &mut Numbers, taken: impl Fn(&str) -> bool) -> String {
    if !taken(&key) {
        return key;
    }
    let original = key.len();
    let number = numbers.entry(key.clone()).or_insert(1);
    while taken(&key) {
        *number += 1;
        key.truncate(original);
        key.push(' ');
        key.push_str(&number.to_string());
    }
    key
}

/// Finds the first text that matches an injection rule. Returns the top-level field and the rule's name.
pub(super) fn find_injection<'a>(
    submission: &TaskSubmission,
    rules: &'a Rules,
) -> Option<(&'static str, &'a str)> {
    if let Some(rule) = rules.injection(submission.goal.as_str()) {
        return Some(("goal", rule));
    }
    if let Some(rule) = submission
        .input
        .as_ref()
        .and_then(|input| in_object(input, rules))
    {
        return Some(("input", rule));
    }
    let metadata = submission.metadata.as_ref()?;
    let rule = metadata.iter().find_map(|(key, text)| {
        rules
            .injection(key)
            .or_else(|| rules.injection(text.as_str()))
    })?;
    Some(("metadata", rule))
}

fn in_object<'a>(object: &Object, rules: &'a Rules) -> Option<&'a str> {
    object
        .iter()
        .find_map(|(key, inner)| rules.injection(key).or_else(|| in_value(inner, rules)))
}

fn in_value<'a>(value: &Value, rules: &'a Rules) -> Option<&'a str> {
    match value {
        Value::String(text) => rules.injection(text),
        Value::Array(items) => items.iter().find_map(|item| in_value(item, rules)),
        Value::Object(object) => in_object(object, rules),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Redactions, Rules};
    use super::object;
    use contracts::events::TaskSubmission;
    use serde_json::json;

    #[test]
    fn the_url_of_a_callback_stays_as_it_is() {
        let rules = Rules::built_in().unwrap();
        let url = "https://hooks.example.com/done?to=ada@example.org";
        let body = json!({"goal": "ask ada@example.org", "callback": {"url": url}});
        let mut submission: TaskSubmission = serde_json::from_value(body).unwrap();
        super::submission(&mut submission, &rules).unwrap();
        assert_eq!(submission.goal.as_str(), "ask [email]");
        assert_eq!(submission.callback.unwrap().url.as_str(), url);
    }

    #[test]
    fn equal_keys_are_numbered_in_linear_time() {
        let rules = Rules::built_in().unwrap();
        let keys = (0..20_000).map(|number| (format!("a{number}@example.org"), json!(number)));
        let taken = [("[email] 3".to_owned(), json!("mine"))];
        let started = std::time::Instant::now();
        let mut clean = taken.into_iter().chain(keys).collect();
        object(&mut clean, &rules, &mut Redactions::default());
        assert_eq!(clean.len(), 20_001);
        assert_eq!(clean["[email] 3"], "mine");
        assert!(clean.contains_key("[email]") && clean.contains_key("[email] 20001"));
        // Trying every number for every key takes minutes.
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
    }
}
