//! Reads the status hash of a task; absent is `None`.

use std::collections::HashMap;

use contracts::events::TaskId;
use contracts::{ids, keys::LaneKeys};
use redis::aio::ConnectionManager;
use redis::AsyncCommands;
use serde_json::{Map, Value};

/// `task.status.v1` as JSON; empty fields are left out.
pub async fn status(
    redis: &mut ConnectionManager,
    task: &TaskId,
) -> Result<Option<Value>, redis::RedisError> {
    let key = LaneKeys::new(ids::lane_of(task)).status(task.as_str());
    let fields: HashMap<String, String> = redis.hgetall(key).await?;
    if fields.is_empty() {
        return Ok(None);
    }
    let mut status = Map::new();
    for (name, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
        let value = match name.as_str() {
            "run" | "version" => text.parse::<u64>().map_or(Value::Null, Value::from),
            "stored" => Value::Bool(text == "1"),
            "result" => serde_json::from_str(&text).unwrap_or(Value::Null),
            _ => Value::String(text),
        };
        status.insert(name, value);
    }
    Ok(Some(Value::Object(status)))
}
