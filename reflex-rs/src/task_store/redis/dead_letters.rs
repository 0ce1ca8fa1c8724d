//! Publishes dead letters, and requests to drop them, on a lane's stream of dead letters.

use contracts::events::{write, DeadDrop, DeadLetter, Event, Tenant};
use contracts::keys::LaneKeys;
use redis::Cmd;

use super::unexpected;
use crate::admission::DeadLetterMessage;
use crate::store::Link;
use crate::task_store::StoreError;

pub(super) async fn publish(redis: &Link, message: &DeadLetterMessage) -> Result<(), StoreError> {
    let mut command = add(
        &message.lane,
        DeadLetter::TYPE,
        &message.tenant,
        &message.traceparent,
        &message.body,
    );
    command.arg("original").arg(&message.original);
    Ok(command.query_async(&mut redis.connection()?).await?)
}

pub(super) async fn request_drop(
    redis: &Link,
    message: &DeadDrop,
    lane: &str,
    traceparent: &str,
) -> Result<(), StoreError> {
    let body = write(message).map_err(|_| unexpected("a dead.drop.v1 cannot be written"))?;
    let command = add(lane, DeadDrop::TYPE, &message.tenant, traceparent, &body);
    Ok(command.query_async(&mut redis.connection()?).await?)
}

fn add(lane: &str, message_type: &str, tenant: &Tenant, traceparent: &str, body: &[u8]) -> Cmd {
    let mut command = redis::cmd("XADD");
    command
        .arg(LaneKeys::new(lane).dead())
        .arg("*")
        .arg(&["type", message_type, "id", ""])
        .arg(&["tenant", tenant.as_str()])
        .arg(&["traceparent", traceparent])
        .arg("body")
        .arg(body);
    command
}
