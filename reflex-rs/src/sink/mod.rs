//! Stores what was decided: a task by the `admit` script, on replicas too where they must have it (`replicas`), a cancellation
//! by `cancel`, one more run by `redrive`, a dead letter and what is to become of it by one XADD. Nothing else.

mod cancel;
mod letter;
mod redrive;
mod replicas;

pub use cancel::Cancelled;
pub use letter::bury;
pub use redrive::Redriven;
pub use replicas::Replicated;

use std::time::Duration;

use bus::Script;
use contracts::fairness::TopicLimits;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;
use redis::{Cmd, ErrorKind, RedisError, Value};
use service::Supervisor;

use self::replicas::Replicas;
use crate::admission::Admitted;
use bus::{RedisClient, StoreError};

/// What the script said; the text is the task id that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    Accepted(String),
    Duplicate(String),
    Conflict(String),
    Busy,
}

/// Puts tasks on their streams.
pub struct Sink {
    link: RedisClient,
    admit: redis::Script,
    cancel: redis::Script,
    redrive: redis::Script,
    replicas: Replicas,
    ttl_s: u64,
}

impl Sink {
    /// `ttl_s`: how long an idempotency key is remembered; `patience`: longest that replicas are waited for.
    #[must_use]
    pub fn new(link: RedisClient, supervisor: Supervisor, ttl_s: u64, patience: Duration) -> Self {
        let script = |script: Script| redis::Script::new(script.source());
        Self {
            replicas: Replicas::new(link.clone(), supervisor, patience),
            link,
            admit: script(Script::Admit),
            cancel: script(Script::Cancel),
            redrive: script(Script::Redrive),
            ttl_s,
        }
    }

    #[must_use]
    pub fn link(&self) -> &RedisClient {
        &self.link
    }

    /// Runs `admit` for one task. After an error nothing is known to be stored: trying again with the same
    /// idempotency key is safe.
    pub async fn admit(&self, topology: &Topology, task: &Admitted) -> Result<Stored, StoreError> {
        let command = self.admission(topology, task)?;
        let mut connection = self.link.connection()?;
        match command.query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::NoScriptError => {
                self.admit.load_async(&mut connection).await?;
                stored(command.query_async(&mut connection).await?)
            }
            answer => stored(answer?),
        }
    }

    /// The same, and waits until `replicas` have it too.
    pub async fn admit_replicated(
        &self,
        topology: &Topology,
        task: &Admitted,
        replicas: usize,
    ) -> Result<Replicated, StoreError> {
        let command = self.admission(topology, task)?;
        self.replicas.admit(command, &task.lane, replicas).await
    }

    /// The call of `admit` for one task.
    fn admission(&self, topology: &Topology, task: &Admitted) -> Result<Cmd, StoreError> {
        let topic = topology.topics.get("tasks").ok_or_else(|| {
            broken(
                redis::ErrorKind::ClientError,
                "the topology has no topic tasks",
            )
        })?;
        let keys = LaneKeys::new(task.lane.as_str());
        let described = TopicLimits::new(topology, topic, &keys);
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.admit.get_hash())
            .arg(3 + described.keys().len())
            .arg(keys.idempotency(task.tenant.as_str(), &task.key))
            .arg(keys.stream(topic, Some(task.priority.as_str())))
            .arg(keys.status(task.task.as_str()))
            .arg(described.keys())
            .arg(&task.fingerprint)
            .arg(task.task.as_str())
            .arg(self.ttl_s)
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
            .arg(&["type", task.message_type, "id", task.task.as_str()])
            .arg(&["tenant", task.tenant.as_str()])
            .arg(&["traceparent", &task.traceparent])
            .arg("body")
            .arg(&task.body)
            .arg(described.args(3));
        Ok(call)
    }
}

/// What `admit` answered.
fn stored(answer: Value) -> Result<Stored, StoreError> {
    let (answer, id): (String, String) = redis::from_owned_redis_value(answer.extract_error()?)?;
    match answer.as_str() {
        "accepted" => Ok(Stored::Accepted(id)),
        "duplicate" => Ok(Stored::Duplicate(id)),
        "conflict" => Ok(Stored::Conflict(id)),
        "busy" => Ok(Stored::Busy),
        _ => Err(broken(ErrorKind::TypeError, "admit gave an unknown answer")),
    }
}

fn broken(kind: redis::ErrorKind, what: &'static str) -> StoreError {
    StoreError::from(RedisError::from((kind, what)))
}
