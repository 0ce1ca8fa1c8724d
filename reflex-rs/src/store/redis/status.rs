//! Reads a task's status: a JSON text from its admission to the orchestrator's first status, a hash afterwards.

use std::collections::HashMap;

use contracts::events::{read as read_event, TaskId, TaskStatus};
use contracts::{ids, keys::LaneKeys, ContractError};
use redis::{Cmd, Value as Answer};
use serde_json::{Map, Value};

use crate::store::{StatusError, StoreError};
use bus::RedisClient;

/// How often a read looks again because the status has become another type between two commands.
const MAX_LOOKS: usize = 3;

pub(super) async fn read(
    redis: &RedisClient,
    task: &TaskId,
) -> Result<Option<TaskStatus>, StatusError> {
    let key = key(task);
    match look(redis, &Cmd::hgetall(&key), &key).await? {
        Status::Admitted(text) => Ok(Some(read_event(&text)?)),
        Status::Hash(answer) => {
            let fields: HashMap<String, String> =
                redis::from_owned_redis_value(answer).map_err(StoreError::from)?;
            if fields.is_empty() {
                return Ok(None);
            }
            Ok(Some(from_fields(fields)?))
        }
    }
}

pub(super) async fn is_persisted(
    redis: &RedisClient,
    task: &TaskId,
) -> Result<Option<bool>, StoreError> {
    let key = key(task);
    match look(redis, &Cmd::hget(&key, "stored"), &key).await? {
        Status::Admitted(_) => Ok(Some(false)),
        Status::Hash(answer) => {
            let stored: Option<String> = redis::from_owned_redis_value(answer)?;
            Ok(stored.map(|stored| stored == "1"))
        }
    }
}

/// What the key of a status holds.
enum Status {
    /// The JSON text of its admission.
    Admitted(Vec<u8>),
    /// What a command for a hash answered.
    Hash(Answer),
}

/// Runs `of_hash`, a command for a hash, or reads the text if the status is one.
async fn look(redis: &RedisClient, of_hash: &Cmd, key: &str) -> Result<Status, StoreError> {
    let mut looks = 0;
    loop {
        looks += 1;
        match redis.query(of_hash).await {
            Err(error) if error.is_wrong_type() && looks < MAX_LOOKS => {}
            answer => return answer.map(Status::Hash),
        }
        match redis.query::<Option<Vec<u8>>>(&Cmd::get(key)).await {
            Ok(Some(text)) => return Ok(Status::Admitted(text)),
            Ok(None) => {}
            Err(error) if error.is_wrong_type() => {}
            Err(error) => return Err(error),
        }
    }
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
