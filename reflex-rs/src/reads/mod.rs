//! Reads what Redis holds of a task: its status hash, who could work on it, and its live events.
//!
//! An absent status is `None`. What does not fit the contract is an error, never an answer.

mod events;
mod place;
mod stored;
mod tail;
mod waiting;

pub use events::kept;
pub use place::Place;
pub use stored::{is_stored, until_stored};
pub use tail::{Item, Tail, Watch};
pub use waiting::waiting;

use std::collections::HashMap;

use contracts::events::{read, TaskId, TaskStatus};
use contracts::{ids, keys::LaneKeys, ContractError};
use redis::AsyncCommands;
use serde_json::{Map, Value};

use bus::{RedisClient, StoreError};

/// Why a status cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the status hash is not a task.status.v1: {0}")]
    Contract(#[from] ContractError),
}

/// The status of a task, whoever's it is: the caller compares the tenant.
pub async fn status(link: &RedisClient, task: &TaskId) -> Result<Option<TaskStatus>, ReadError> {
    let key = LaneKeys::new(ids::lane_of(task)).status(task.as_str());
    let fields: HashMap<String, String> = link
        .connection()?
        .hgetall(key)
        .await
        .map_err(StoreError::from)?;
    if fields.is_empty() {
        return Ok(None);
    }
    from_fields(fields).map(Some).map_err(ReadError::from)
}

/// A hash holds text only; empty fields are absent ones.
fn from_fields(fields: HashMap<String, String>) -> Result<TaskStatus, ContractError> {
    let mut status = Map::new();
    for (name, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
        let value = match name.as_str() {
            "run" | "version" => text.parse::<u64>().map_or(Value::Null, Value::from),
            "stored" => match text.as_str() {
                "0" => Value::Bool(false),
                "1" => Value::Bool(true),
                _ => Value::Null,
            },
            "result" | "open" => serde_json::from_str(&text).unwrap_or(Value::Null),
            _ => Value::String(text),
        };
        status.insert(name, value);
    }
    read(Value::Object(status).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::from_fields;
    use std::collections::HashMap;

    fn hash(changes: &[(&str, &str)]) -> HashMap<String, String> {
        let mut fields: HashMap<String, String> = [
            ("task", "l0-01h00000000000000000000000"),
            ("tenant", "default"),
            ("state", "running"),
            ("run", "1"),
            ("version", "3"),
            ("stored", "1"),
            ("created_at", "2026-01-31T12:00:00.000Z"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
        for (name, text) in changes {
            fields.insert((*name).to_owned(), (*text).to_owned());
        }
        fields
    }

    #[test]
    fn a_hash_becomes_a_status_and_a_wrong_one_an_error_that_names_the_field() {
        let status = from_fields(hash(&[("detail", "")])).unwrap();
        assert!(status.stored && status.detail.is_none());
        for (name, text) in [
            ("run", "one"),
            ("stored", "yes"),
            ("state", "odd"),
            ("result", "{"),
            ("surplus", "x"),
        ] {
            let error = from_fields(hash(&[(name, text)])).unwrap_err();
            assert!(error.field.starts_with(name), "{name}: {error}");
        }
    }
}
