//! Finds the open steps of a task that no worker can take, because no worker of their arm is alive.

use std::collections::HashMap;

use contracts::events::fields::Bytes;
use contracts::events::{List, Name, OpenStep, TaskState, TaskStatus, WaitingStep};
use contracts::ids;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

use crate::store::StoreError;
use bus::RedisClient;

/// Younger steps are not checked: that would make every read of a healthy task expensive.
const MIN_AGE_MS: u64 = 3000;
/// Added to two heartbeats: how long a living worker may be idle. It also reads between its heartbeats.
const GRACE_MS: u64 = 3000;
/// Not a worker: the consumer that holds released entries.
const RELEASED: &[u8] = b"released";

/// Returns the waiting steps with how long each has waited, or `None` if there are none.
pub(super) async fn steps(
    redis: &RedisClient,
    topology: &Topology,
    status: &TaskStatus,
) -> Result<Option<List<WaitingStep, 200>>, StoreError> {
    let open = status.open.as_ref().map_or(&[][..], List::as_slice);
    let running = matches!(status.state, TaskState::Accepted | TaskState::Running);
    let now_ms = redis.now_ms()?;
    let age = |step: &OpenStep| {
        let sent = ids::timestamp_ms(step.sent_at.as_str()).unwrap_or(now_ms);
        now_ms.saturating_sub(sent)
    };
    if !running || !open.iter().any(|step| age(step) > MIN_AGE_MS) {
        return Ok(None);
    }
    let keys = LaneKeys::new(ids::lane_of(&status.task));
    let mut connection = redis.connection()?;
    let mut arms: HashMap<&Name, Workers> = HashMap::new();
    let mut waiting = Vec::new();
    for step in open {
        let workers = if let Some(known) = arms.get(&step.arm) {
            *known
        } else {
            let found = workers_of(&mut connection, topology, &keys, &step.arm).await?;
            *arms.entry(&step.arm).or_insert(found)
        };
        let for_ms = match workers {
            Workers::Alive => continue,
            Workers::LastSeen(idle_ms) => age(step).min(idle_ms),
            Workers::NeverSeen => age(step),
        };
        waiting.push(WaitingStep {
            step: step.step.clone(),
            arm: step.arm.clone(),
            for_s: Bytes::nearest(for_ms / 1000),
        });
    }
    Ok((!waiting.is_empty()).then(|| List::cut(waiting)))
}

/// Whether an arm has a living worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workers {
    /// A worker is alive, or there is nothing to take.
    Alive,
    /// None is alive; milliseconds since the last one was seen.
    LastSeen(u64),
    NeverSeen,
}

async fn workers_of(
    connection: &mut MultiplexedConnection,
    topology: &Topology,
    keys: &LaneKeys,
    arm: &Name,
) -> Result<Workers, StoreError> {
    let Some(topic) = topology.arm(arm.as_str()) else {
        return Ok(Workers::NeverSeen);
    };
    let streams = keys.streams(topic, &topology.priorities);
    let mut lengths = redis::pipe();
    for stream in &streams {
        lengths.cmd("XLEN").arg(stream);
    }
    let lengths: Vec<u64> = lengths.query_async(connection).await?;
    // Finished entries are deleted, so the step is elsewhere, for example on the schedule. Before Redis 7.2 a worker that
    // finds nothing to read is not seen either; this keeps it from being considered dead.
    if lengths.iter().all(|length| *length == 0) {
        return Ok(Workers::Alive);
    }
    let mut idle_ms: Option<u64> = None;
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
        idle_ms = idle.chain(idle_ms).min();
    }
    Ok(classify(idle_ms, topic.heartbeat_s))
}

fn classify(idle_ms: Option<u64>, heartbeat_s: u64) -> Workers {
    match idle_ms {
        None => Workers::NeverSeen,
        Some(idle) if idle < 2 * heartbeat_s * 1000 + GRACE_MS => Workers::Alive,
        Some(idle) => Workers::LastSeen(idle),
    }
}

/// Whether the stream or its group does not exist: no worker was ever there.
fn is_missing(error: &RedisError) -> bool {
    // ERR is the code for a missing stream. This XINFO has no other error without a code of its own.
    matches!(error.code(), Some("NOGROUP" | "ERR"))
}

/// One consumer, as XINFO describes it.
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
    use super::{classify, Workers};

    #[test]
    fn a_worker_is_alive_for_two_heartbeats_and_three_seconds() {
        assert_eq!(classify(None, 5), Workers::NeverSeen);
        assert_eq!(classify(Some(0), 5), Workers::Alive);
        assert_eq!(classify(Some(12_999), 5), Workers::Alive);
        assert_eq!(classify(Some(13_000), 5), Workers::LastSeen(13_000));
    }
}
