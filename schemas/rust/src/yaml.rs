//! Strict reading of a configuration file in YAML: a key that stands twice or is unknown is refused by its place.

use serde::de::DeserializeOwned;

use crate::events::reading::fault;

/// Reads `text`. `begin` says how such a file begins; `at` may say more about a wrong value than serde does, by its place.
pub(crate) fn read<T: DeserializeOwned>(
    text: &str,
    begin: &str,
    at: impl Fn(&str) -> Option<&'static str>,
) -> Result<T, String> {
    // By way of a value, because only there a key that stands twice is refused.
    let value: serde_yaml_ng::Value =
        serde_yaml_ng::from_str(text).map_err(|error| format!("not valid YAML: {error}"))?;
    if !value.is_mapping() {
        return Err(format!("the file: must be a mapping; begin with {begin}"));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, &error.into_inner().to_string(), at)
    })
}

/// `message` says what to change where something does not hold.
pub(crate) fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(message())
    }
}

/// serde's sentence as place and fix.
fn explain(path: &str, sentence: &str, at: impl Fn(&str) -> Option<&'static str>) -> String {
    let fault = fault(path, sentence);
    let place = if fault.field.is_empty() {
        "the file"
    } else {
        &fault.field
    };
    if sentence.starts_with("missing field") {
        format!("{place}: missing; add it")
    } else if sentence.starts_with("unknown field") {
        format!("{place}: unknown key; remove it or correct its name")
    } else if let Some(known) = at(place) {
        format!("{place}: {known}")
    } else {
        format!("{place}: {}", fault.message)
    }
}
