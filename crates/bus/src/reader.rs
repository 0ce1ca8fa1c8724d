//! Blocking reads for a consumer group, on a connection of their own.

use std::future::Future;
use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::client::RedisClient;
use crate::entry::Entry;
use crate::error::StoreError;
use crate::group::ConsumerGroup;

/// Longest that one read waits for entries.
pub const MAX_BLOCK: Duration = Duration::from_secs(2);

/// Reads new entries for a consumer. Connects when it is first used and again after an error.
#[derive(Debug, Default)]
pub struct Reader {
    connection: Option<Connection>,
}

struct Connection {
    redis: MultiplexedConnection,
    /// `None` where an ACL forbids to ask for it.
    client_id: Option<i64>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connection")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Read up to `count` new entries from each of `streams`; wait for up to `MAX_BLOCK` where `block` is set.
    ///
    /// `stop` ends a wait early. The read itself is never dropped half-way: Redis may just be handing entries to it.
    pub async fn read(
        &mut self,
        group: &ConsumerGroup,
        streams: &[String],
        count: usize,
        block: bool,
        stop: impl Future<Output = ()>,
    ) -> Result<Vec<Entry>, StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            missing => missing.insert(Connection::open(&group.client).await?),
        };
        let found = connection.read(group, streams, count, block, stop).await;
        if found.is_err() {
            // It may hang, or lead to a server that is gone.
            self.connection = None;
        }
        found
    }
}

impl Connection {
    async fn open(client: &RedisClient) -> Result<Self, StoreError> {
        let mut redis = client.dedicated(MAX_BLOCK).await?;
        let client_id = redis::cmd("CLIENT").arg("ID").query_async(&mut redis).await;
        Ok(Self {
            redis,
            client_id: client_id.ok(),
        })
    }

    async fn read(
        &mut self,
        group: &ConsumerGroup,
        streams: &[String],
        count: usize,
        block: bool,
        stop: impl Future<Output = ()>,
    ) -> Result<Vec<Entry>, StoreError> {
        let block = block.then_some(MAX_BLOCK);
        let read = group.read(&mut self.redis, streams, count, block);
        tokio::pin!(read);
        tokio::select! {
            found = &mut read => return found,
            () = stop => {}
        }
        if let Err(error) = wake(&group.client, self.client_id).await {
            tracing::debug!(%error, "a waiting read cannot be woken; waiting for its end");
        }
        read.await
    }
}

/// End a read that waits, without losing what it may just have been given.
async fn wake(client: &RedisClient, client_id: Option<i64>) -> Result<(), StoreError> {
    let Some(client_id) = client_id else {
        return Ok(());
    };
    let mut command = redis::cmd("CLIENT");
    command.arg("UNBLOCK").arg(client_id);
    client.query::<redis::Value>(&command).await.map(drop)
}
