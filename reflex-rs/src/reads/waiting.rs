//! Which open steps of a task nobody can take now, because no worker of their arm is alive.

use std::collections::HashMap;

use contracts::events::fields::Bytes;
use contracts::events::{List, Name, OpenStep, TaskState, TaskStatus, WaitingStep};
use contracts::ids;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

use bus::{RedisClient, StoreError};

/// Younger steps are on their way; asking about them would cost every read of a healthy task.
const YOUNG_MS: u64 = 3000;
/// Added to two heartbeats: how long a living worker may be silent, which reads in between as well.
const SILENCE_MS: u64 = 3000;
/// Not a worker: holds what workers gave back.
const RELEASED: &[u8] = b"released";

/// The waiting steps with how long each has waited; none where all is well or nothing was asked.
pub async fn waiting(
    link: &RedisClient,
    topology: &Topology,
    status: &TaskStatus,
    now_ms: u64,
) -> Result<Option<List<WaitingStep, 200>>, StoreError> {
    let open = status.open.as_ref().map_or(&[][..], List::as_slice);
    let running = matches!(status.state, TaskState::Accepted | TaskState::Running);
    let age = |step: &OpenStep| {
        let sent = ids::timestamp_ms(step.sent_at.as_str()).unwrap_or(now_ms);
        now_ms.saturating_sub(sent)
    };
    if !running || !open.iter().any(|step| age(step) > YOUNG_MS) {
        return Ok(None);
    }
    let keys = LaneKeys::new(ids::lane_of(&status.task));
    let mut connection = link.connection()?;
    let mut arms: HashMap<&Name, Silence> = HashMap::new();
    let mut waiting = Vec::new();
    for step in open {
        let silence = if let Some(known) = arms.get(&step.arm) {
            *known
        } else {
            let found = silence(&mut connection, topology, &keys, &step.arm).await?;
            *arms.entry(&step.arm).or_insert(found)
        };
        let for_ms = match silence {
            Silence::Alive => continue,
            Silence::Since(idle_ms) => age(step).min(idle_ms),
            Silence::Always => age(step),
        };
        waiting.push(WaitingStep {
            step: step.step.clone(),
            arm: step.arm.clone(),
            for_s: Bytes::nearest(for_ms / 1000),
        });
    }
    Ok((!waiting.is_empty()).then(|| List::cut(waiting)))
}

/// How long an arm has had no living worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// Somebody is there, or nothing for anybody to take.
    Alive,
    /// Milliseconds since the last one was seen.
    Since(u64),
    /// None was ever seen.
    Always,
}

async fn silence(
    connection: &mut MultiplexedConnection,
    topology: &Topology,
    keys: &LaneKeys,
    arm: &Name,
) -> Result<Silence, StoreError> {
    let Some(topic) = topology.arm(arm.as_str()) else {
        return Ok(Silence::Always);
    };
    let streams = keys.streams(topic, &topology.priorities);
    let mut lengths = redis::pipe();
    for stream in &streams {
        lengths.cmd("XLEN").arg(stream);
    }
    let lengths: Vec<u64> = lengths.query_async(connection).await?;
    // Finished entries are deleted, so the step stands elsewhere: on the schedule, say. Before Redis 7.2 a worker that finds
    // nothing to read is not seen either, and this keeps it from being taken for dead.
    if lengths.iter().all(|length| *length == 0) {
        return Ok(Silence::Alive);
    }
    let mut youngest = None;
    for stream in streams {
        let answer: RedisResult<Vec<Consumer>> = redis::cmd("XINFO")
            .arg(&["CONSUMERS", &stream, &topic.group])
            .query_async(connection)
            .await;
        let consumers = match answer {
            Err(error) if is_missing(&error) => continue,
            answer => answer?,
        };
        let idle = consumers
            .iter()
            .filter(|one| one.name != RELEASED)
            .map(|one| one.idle_ms);
        youngest = idle.chain(youngest).min();
    }
    Ok(judge(youngest, topic.heartbeat_s))
}

fn judge(youngest_ms: Option<u64>, heartbeat_s: u64) -> Silence {
    match youngest_ms {
        None => Silence::Always,
        Some(idle) if idle < 2 * heartbeat_s * 1000 + SILENCE_MS => Silence::Alive,
        Some(idle) => Silence::Since(idle),
    }
}

/// Neither stream nor group: no worker was ever there.
fn is_missing(error: &RedisError) -> bool {
    error.code() == Some("NOGROUP")
        || error
            .detail()
            .is_some_and(|text| text.contains("no such key"))
}

/// One consumer as XINFO describes it.
struct Consumer {
    name: Vec<u8>,
    idle_ms: u64,
}

impl FromRedisValue for Consumer {
    fn from_redis_value(value: &Value) -> RedisResult<Self> {
        let mut fields: HashMap<String, Value> = HashMap::from_redis_value(value)?;
        let mut take = |name| fields.remove(name).unwrap_or(Value::Nil);
        Ok(Self {
            name: Vec::from_redis_value(&take("name"))?,
            idle_ms: u64::from_redis_value(&take("idle"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{judge, Silence};

    #[test]
    fn a_worker_lives_while_it_was_seen_within_two_heartbeats_and_three_seconds() {
        assert_eq!(judge(None, 5), Silence::Always);
        assert_eq!(judge(Some(0), 5), Silence::Alive);
        assert_eq!(judge(Some(12_999), 5), Silence::Alive);
        assert_eq!(judge(Some(13_000), 5), Silence::Since(13_000));
    }
}
