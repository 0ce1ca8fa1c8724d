//! How serde reads the events: what is absent is never null, what is nested is an object, and an error names the field and
//! never quotes what it found.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::ContractError;

/// For optional fields: absent is `None`, null is refused.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// For a nested struct: an object, never the array that serde would take as well.
pub(crate) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<T, D::Error> {
    from_object(Map::deserialize(from)?).map_err(D::Error::custom)
}

/// `object` for an optional field.
pub(crate) fn present_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    object(from).map(Some)
}

/// Reads a struct from an object that was read before; the error keeps the inner path.
pub fn from_object<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, ContractError> {
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let path = error.path().to_string();
        fault(&path, &error.into_inner().to_string())
    })
}

/// One error from serde's path and sentence, without the position that means nothing to a producer.
pub(crate) fn fault(path: &str, sentence: &str) -> ContractError {
    let sentence = sentence
        .rsplit_once(" at line ")
        .map_or(sentence, |(sentence, _)| sentence);
    let path = if path == "." { "" } else { path };
    let named = named_field(sentence);
    let field = match (path.is_empty(), named) {
        (true, Some(name)) => name.to_owned(),
        (false, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
        _ => path.to_owned(),
    };
    ContractError::schema(field, without_value(sentence))
}

/// The field of serde's ``missing field `x` `` and ``unknown field `x`, ...``.
fn named_field(sentence: &str) -> Option<&str> {
    let rest = sentence
        .strip_prefix("missing field `")
        .or_else(|| sentence.strip_prefix("unknown field `"))?;
    rest.split('`')
        .next()
        .filter(|name| name.len() <= 100 && name.chars().all(|character| !character.is_control()))
}

/// serde quotes what it found (`invalid type: string "..."`); that may be personal data.
fn without_value(sentence: &str) -> String {
    let Some((found, expected)) = sentence.rsplit_once(", expected ") else {
        return sentence.to_owned();
    };
    if found.starts_with("invalid type") || found.starts_with("invalid value") {
        let kind = found.split(['"', '`']).next().unwrap_or(found).trim();
        return format!("{kind}, expected {expected}");
    }
    sentence.to_owned()
}
