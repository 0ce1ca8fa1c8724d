//! Reads a task's status hash.

use std::collections::HashMap;

use contracts::events::{read as read_event, TaskId, TaskStatus};
use contracts::{ids, keys::LaneKeys, ContractError};
use redis::Cmd;
use serde_json::{Map, Value};

use crate::store::{StatusError, StoreError};
use bus::RedisClient;

pub(super) async fn read(
    redis: &RedisClient,
    task: &TaskId,
) -> Result<Option<TaskStatus>, StatusError> {
    let fields: HashMap<String, String> = redis.query(&Cmd::hgetall(key(task))).await?;
    if fields.is_empty() {
        return Ok(None);
    }
    from_fields(fields).map(Some).map_err(StatusError::from)
}

pub(super) async fn is_persisted(
    redis: &RedisClient,
    task: &TaskId,
) -> Result<Option<bool>, StoreError> {
    let stored: Option<String> = redis.query(&Cmd::hget(key(task), "stored")).await?;
    Ok(stored.map(|stored| stored == "1"))
}

fn key(task: &TaskId) -> String {
    LaneKeys::new(ids::lane_of(task)).status(task.as_str())
}

/// Converts the hash, which holds only text. An empty field is an absent one.
fn from_fields(fields: HashMap<String, String>) -> Result<TaskStatus, ContractError> {
    let mut status = Map::new();
    for (name, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
        let value = match name.as_str() {
            "run" | "version" | "result_bytes" => {
                text.parse::<u64>().map_or(Value::Null, Value::from)
            }
            "stored" => match text.as_str() {
                "0" => Value::Bool(false),
                "1" => Value::Bool(true),
                _ => Value::Null,
            },
            "result" | "open" | "metadata" => serde_json::from_str(&text).unwrap_or(Value::Null),
            _ => Value::String(text),
        };
        status.insert(name, value);
    }
    read_event(Value::Object(status).to_string().as_bytes())
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
    fn an_invalid_hash_is_an_error_that_names_the_field() {
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
