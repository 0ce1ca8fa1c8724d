//! What the capped stream of live events still holds of one task.

use contracts::events::{read, TaskEvent, TaskId};
use contracts::ids;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;

use super::Place;
use bus::{RedisClient, StoreError};

/// Entries looked at in one command.
const CHUNK: usize = 500;
/// The cap is approximate: Redis drops whole nodes of the stream.
const SLACK: u64 = 1000;

/// Names and values in turn.
pub(super) type Fields = Vec<Vec<u8>>;

/// The task's events after `after`, in order. Reads backwards and no further than it must.
pub async fn kept(
    link: &RedisClient,
    topology: &Topology,
    task: &TaskId,
    after: Option<Place>,
) -> Result<Vec<TaskEvent>, StoreError> {
    let key = LaneKeys::new(ids::lane_of(task)).events();
    let cap = topology
        .live
        .get("events")
        .map_or(0, |live| live.max_length)
        + SLACK;
    let most = usize::try_from(cap).unwrap_or(usize::MAX);
    let mut connection = link.connection()?;
    let (mut found, mut end, mut looked_at) = (Vec::new(), "+".to_owned(), 0);
    'stream: while looked_at < most {
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
        looked_at += chunk.len();
        for event in chunk
            .iter()
            .filter_map(|(id, fields)| of_task(id, fields, task.as_str()))
        {
            let place = Place::of(&event);
            if after.is_some_and(|after| place <= after) {
                break 'stream;
            }
            found.push(event);
            if (place.run, place.seq) == (1, 1) {
                break 'stream;
            }
        }
    }
    found.sort_by_key(Place::of);
    found.dedup_by_key(|event| Place::of(event));
    Ok(found)
}

/// The event within an entry, where it is this task's.
fn of_task(entry: &str, fields: &Fields, task: &str) -> Option<TaskEvent> {
    (field(fields, b"id")? == task.as_bytes()).then_some(())?;
    parse(entry, fields)
}

/// The event within an entry. One that is none is logged and passed over: nobody waits for it.
pub(super) fn parse(entry: &str, fields: &Fields) -> Option<TaskEvent> {
    match read(field(fields, b"body").unwrap_or_default()) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!(entry, %error, "an entry of the live events is no task.event.v1");
            None
        }
    }
}

/// The value of a field.
pub(super) fn field<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = fields.chunks_exact(2);
    pairs
        .find(|pair| pair[0] == name)
        .map(|pair| pair[1].as_slice())
}
