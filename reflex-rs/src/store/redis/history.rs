//! Reads the events of one task that the capped event stream of its lane still holds.

use contracts::events::{read as read_event, TaskEvent, TaskId};
use contracts::ids;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;

use crate::store::{EventId, StoreError};
use bus::RedisClient;

/// Entries read by one command.
const CHUNK: usize = 500;
/// The stream may exceed its cap by this many entries: Redis drops only whole nodes.
const SLACK: u64 = 1000;

/// The fields of an entry: names and values alternate.
pub(super) type Fields = Vec<Vec<u8>>;

/// Returns the task's events after `after`, in order. Reads backwards, and no further than necessary.
pub(super) async fn read(
    redis: &RedisClient,
    topology: &Topology,
    task: &TaskId,
    after: Option<EventId>,
) -> Result<Vec<TaskEvent>, StoreError> {
    let key = LaneKeys::new(ids::lane_of(task)).events();
    let cap = topology
        .live
        .get("events")
        .map_or(0, |live| live.max_length)
        + SLACK;
    let max_entries = usize::try_from(cap).unwrap_or(usize::MAX);
    let mut connection = redis.connection()?;
    let (mut found, mut end, mut read) = (Vec::new(), "+".to_owned(), 0);
    'stream: while read < max_entries {
        let chunk: Vec<(String, Fields)> = redis::cmd("XREVRANGE")
            .arg(&[key.as_str(), end.as_str(), "-"])
            .arg("COUNT")
            .arg(CHUNK)
            .query_async(&mut connection)
            .await?;
        let Some((last, _)) = chunk.last() else {
            break;
        };
        end = format!("({last}");
        read += chunk.len();
        for event in chunk
            .iter()
            .filter_map(|(id, fields)| of_task(id, fields, task.as_str()))
        {
            let id = EventId::of(&event);
            if after.is_some_and(|after| id <= after) {
                break 'stream;
            }
            found.push(event);
            if (id.run, id.seq) == (1, 1) {
                break 'stream;
            }
        }
    }
    found.sort_by_key(EventId::of);
    found.dedup_by_key(|event| EventId::of(event));
    Ok(found)
}

/// Parses an entry if it is this task's.
fn of_task(entry: &str, fields: &Fields, task: &str) -> Option<TaskEvent> {
    (field(fields, b"id")? == task.as_bytes()).then_some(())?;
    parse(entry, fields)
}

/// Parses the event in an entry. An invalid one is logged and skipped.
pub(super) fn parse(entry: &str, fields: &Fields) -> Option<TaskEvent> {
    match read_event(field(fields, b"body").unwrap_or_default()) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!(entry, %error, "skipped an entry of the event stream that is not a task.event.v1");
            None
        }
    }
}

/// Returns the value of a field.
pub(super) fn field<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = fields.chunks_exact(2);
    pairs
        .find(|pair| pair[0] == name)
        .map(|pair| pair[1].as_slice())
}
