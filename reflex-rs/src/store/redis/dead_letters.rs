//! Publishes dead letters, and requests to drop them, on a lane's stream of dead letters.

use contracts::events::{write, DeadDrop, DeadLetter, Event, Tenant};
use contracts::keys::LaneKeys;
use redis::Cmd;

use crate::admission::DeadLetterMessage;
use crate::store::StoreError;
use bus::RedisClient;

pub(super) async fn publish(
    redis: &RedisClient,
    message: &DeadLetterMessage,
) -> Result<(), StoreError> {
    let mut command = add(
        &message.lane,
        DeadLetter::TYPE,
        &message.tenant,
        &message.traceparent,
        &message.body,
    );
    command.arg("original").arg(&message.original);
    redis.query(&command).await
}

pub(super) async fn request_drop(
    redis: &RedisClient,
    message: &DeadDrop,
    lane: &str,
    traceparent: &str,
) -> Result<(), StoreError> {
    let body = write(message)
        .map_err(|_| StoreError::unexpected_answer("a dead.drop.v1 cannot be written"))?;
    let command = add(lane, DeadDrop::TYPE, &message.tenant, traceparent, &body);
    redis.query(&command).await
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
