//! Removes the names of dead processes from a consumer group; Redis keeps them for ever otherwise.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{from_redis_value, Value};

use crate::call::ScriptCall;
use crate::error::StoreError;
use crate::group::ConsumerGroup;
use crate::script::Script;

/// A consumer that has not called for so long and owns nothing is dead. One that lives after all is back with its next
/// read.
pub const DEAD_AFTER: Duration = Duration::from_secs(600);
/// How often a process looks.
const INTERVAL: Duration = Duration::from_secs(60);

/// Looks for dead consumers of one group from time to time.
#[derive(Debug, Default)]
pub struct DeadConsumers {
    last: Option<Instant>,
}

impl DeadConsumers {
    /// Remove dead consumers, unless this was done within the last minute.
    pub async fn remove(&mut self, group: &ConsumerGroup) -> Result<(), StoreError> {
        if self.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return Ok(());
        }
        match remove_idle(group, DEAD_AFTER).await {
            // There is no group yet, or an ACL forbids to look: no reason to stop reading.
            Err(error) if !error.is_transient() || error.is_missing_group() => {
                tracing::debug!(%error, "cannot look for dead consumers");
            }
            removed => removed?,
        }
        self.last = Some(Instant::now());
        Ok(())
    }
}

/// Remove the other consumers of a group that own no entries and have not called for `dead_after`.
pub async fn remove_idle(group: &ConsumerGroup, dead_after: Duration) -> Result<(), StoreError> {
    for stream in &group.streams {
        let mut command = redis::cmd("XINFO");
        command.arg(&["CONSUMERS", stream, &group.name]);
        let consumers: Vec<HashMap<String, Value>> = group.client.query(&command).await?;
        for consumer in &consumers {
            if let Some(name) =
                dead_name(consumer, dead_after).filter(|name| *name != group.consumer)
            {
                let mut call = ScriptCall::new(Script::LeaveGroup);
                // Looks again whether it owns nothing.
                call.key(stream).arg(&group.name).arg(&name);
                group.client.call::<Value>(&call).await?;
                tracing::debug!(stream, name, "removed the name of a dead consumer");
            }
        }
    }
    Ok(())
}

fn dead_name(consumer: &HashMap<String, Value>, dead_after: Duration) -> Option<String> {
    let number = |field: &str| from_redis_value::<u64>(consumer.get(field)?).ok();
    let idle = Duration::from_millis(number("idle")?);
    let is_dead = number("pending")? == 0 && idle >= dead_after;
    is_dead
        .then(|| from_redis_value(consumer.get("name")?).ok())
        .flatten()
}
