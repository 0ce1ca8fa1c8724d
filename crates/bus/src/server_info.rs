//! What the server says about itself: how it syncs, and its replicas.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Role};

use crate::error::is_refused;

/// What the server says about itself, at most a second old. `None` where it refuses to say, as hosted servers do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Whether it syncs its append-only file before it answers.
    pub synced: Option<bool>,
    /// How many replicas follow it.
    pub replicas: Option<usize>,
}

impl ServerInfo {
    /// Ask the server.
    pub(crate) async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        Ok(Self {
            synced: always_syncs(connection).await?,
            replicas: replica_count(connection).await?,
        })
    }

    /// Ask again, except for what was refused: some servers log each refusal.
    pub(crate) async fn ask_again(
        mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Self, RedisError> {
        if self.synced.is_some() {
            self.synced = always_syncs(connection).await?;
        }
        if self.replicas.is_some() {
            self.replicas = replica_count(connection).await?;
        }
        Ok(self)
    }
}

/// Turn the server's refusal of a question into `None`. An answer that may come later stays an error.
pub(crate) fn unless_refused<T>(answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
    match answer {
        Err(error) if !is_refused(&error) => Err(error),
        answer => Ok(answer.ok()),
    }
}

/// Whether every answer follows a sync. With `no-appendfsync-on-rewrite` nothing is synced while the file is rewritten.
async fn always_syncs(connection: &mut MultiplexedConnection) -> Result<Option<bool>, RedisError> {
    let answer: Result<HashMap<String, String>, RedisError> = redis::cmd("CONFIG")
        .arg("GET")
        .arg(&["appendonly", "appendfsync", "no-appendfsync-on-rewrite"])
        .query_async(connection)
        .await;
    Ok(unless_refused(answer)?.map(|values| {
        let is = |name: &str, wanted: &str| values.get(name).is_some_and(|value| value == wanted);
        is("appendonly", "yes")
            && is("appendfsync", "always")
            && is("no-appendfsync-on-rewrite", "no")
    }))
}

/// Replicas that are online; a server that is a replica itself has none that count.
async fn replica_count(
    connection: &mut MultiplexedConnection,
) -> Result<Option<usize>, RedisError> {
    Ok(match unless_refused(role(connection).await)? {
        Some(Role::Primary { replicas, .. }) => Some(replicas.len()),
        Some(Role::Replica { .. }) => Some(0),
        Some(Role::Sentinel { .. }) | None => None,
    })
}

/// Whether the server is a replica. One that does not answer ROLE counts as a replica: callers ask only after a
/// refused write.
pub(crate) async fn is_replica(connection: &mut MultiplexedConnection) -> bool {
    !matches!(role(connection).await, Ok(Role::Primary { .. }))
}

async fn role(connection: &mut MultiplexedConnection) -> Result<Role, RedisError> {
    redis::cmd("ROLE").query_async(connection).await
}
