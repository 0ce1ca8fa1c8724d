//! Follows what is published: a hash with one field for each kind, and the version that is set together with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bus::{RedisClient, Refusal, StoreError};
use contracts::keys;

use super::{Kinds, Table};

/// How often the version is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the first look is put off while Redis is not connected.
const FIRST_INTERVAL: Duration = Duration::from_millis(20);
/// How much may be published, all schemas together.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What is published: the version, a schema as JSON for each kind, and the version after that was read.
type Published = (Option<String>, HashMap<String, String>, Option<String>);

impl Kinds {
    /// Keeps the table up to date for as long as the process runs. Fails if Redis refuses to let this read.
    pub async fn follow(self: Arc<Self>, redis: RedisClient) -> Result<(), Refusal> {
        let mut known: Option<String> = None;
        let mut interval = FIRST_INTERVAL;
        loop {
            match self.refresh(&redis, &mut known).await {
                Ok(()) => interval = INTERVAL,
                Err(error) => {
                    error.check_transient("read the published kinds")?;
                    // The client reports an outage once; meanwhile the last table holds.
                    tracing::debug!(%error, "cannot read the published kinds; trying again");
                }
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// Reads the version, and the schemas if it is not `known`.
    async fn refresh(
        &self,
        redis: &RedisClient,
        known: &mut Option<String>,
    ) -> Result<(), StoreError> {
        let version: Option<String> = redis
            .query(redis::cmd("GET").arg(keys::KINDS_VERSION))
            .await?;
        if version == *known {
            return Ok(());
        }
        let mut all = redis::pipe();
        // Not MULTI: a full Redis refuses to queue even reads.
        all.get(keys::KINDS_VERSION)
            .hgetall(keys::KINDS)
            .get(keys::KINDS_VERSION);
        let mut connection = redis.connection()?;
        let (version, schemas, after): Published = all.query_async(&mut connection).await?;
        if version != after {
            // Others were published in between; the next look finds them.
            return Ok(());
        }
        match version.is_some().then(|| compile(schemas)).transpose() {
            Ok(table) => {
                let kinds = table.as_ref().map_or(0, Table::len);
                tracing::info!(version, kinds, "read the published kinds");
                self.replace(table);
            }
            // The orchestrator has checked them; the last table holds until another one is published.
            Err(error) => tracing::error!(version, %error, "the published kinds cannot be used"),
        }
        *known = version;
        Ok(())
    }
}

fn compile(schemas: HashMap<String, String>) -> Result<Table, String> {
    let bytes: usize = schemas.values().map(String::len).sum();
    if bytes > MAX_BYTES {
        return Err(format!("{bytes} bytes of schemas, more than {MAX_BYTES}"));
    }
    Table::compile(schemas).map_err(|error| error.to_string())
}
