//! Stores what was admitted: the `admit` script, and nothing else.

use contracts::keys::LaneKeys;
use contracts::scripts::Script;
use contracts::topology::Topology;
use redis::aio::ConnectionManager;

use crate::admission::Admitted;

/// What the script said; the text is the task id that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    Accepted(String),
    Duplicate(String),
    Conflict(String),
    Busy,
}

/// Runs `admit` for one task. A Redis error means that nothing is known to be stored: the caller may try again.
pub async fn admit(
    redis: &mut ConnectionManager,
    topology: &Topology,
    ttl_s: u64,
    task: &Admitted,
) -> Result<Stored, redis::RedisError> {
    let Some(topic) = topology.topics.get("tasks") else {
        return Err((
            redis::ErrorKind::ClientError,
            "the topology has no topic tasks",
        )
            .into());
    };
    let keys = LaneKeys::new(task.lane.as_str());
    let script = redis::Script::new(&Script::Admit.source());
    let mut call = script.prepare_invoke();
    call.key(keys.idempotency(task.tenant.as_str(), &task.key))
        .key(keys.stream(topic, Some(task.priority.as_str())))
        .key(keys.status(task.task.as_str()))
        .arg(&task.fingerprint)
        .arg(task.task.as_str())
        .arg(ttl_s)
        .arg(topic.high_water);
    let mut status = vec![
        ("task", task.task.as_str()),
        ("tenant", task.tenant.as_str()),
        ("state", "accepted"),
        ("run", "1"),
        ("version", "0"),
        ("stored", "0"),
        ("created_at", task.created_at.as_str()),
    ];
    if let Some(kind) = &task.kind {
        status.push(("kind", kind));
    }
    call.arg(status.len());
    for (name, value) in status {
        call.arg(name).arg(value);
    }
    call.arg(5)
        .arg(&[
            "type",
            task.message_type,
            "id",
            task.task.as_str(),
            "tenant",
            task.tenant.as_str(),
        ])
        .arg("traceparent")
        .arg(&task.traceparent)
        .arg("body")
        .arg(&task.body);
    let (answer, id): (String, String) = call.invoke_async(redis).await?;
    match answer.as_str() {
        "accepted" => Ok(Stored::Accepted(id)),
        "duplicate" => Ok(Stored::Duplicate(id)),
        "conflict" => Ok(Stored::Conflict(id)),
        "busy" => Ok(Stored::Busy),
        _ => Err((
            redis::ErrorKind::ResponseError,
            "admit gave an unknown answer",
        )
            .into()),
    }
}
