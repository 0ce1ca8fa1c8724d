//! Whether Postgres has a task, and waiting until it has.

use contracts::events::TaskId;
use contracts::ids;
use contracts::keys::LaneKeys;
use redis::AsyncCommands;
use tokio::time::{timeout_at, Instant};

use super::{Item, Watch};
use bus::{RedisClient, StoreError};

/// As the task's status says; none where there is no status.
pub async fn is_stored(link: &RedisClient, task: &TaskId) -> Result<Option<bool>, StoreError> {
    let key = LaneKeys::new(ids::lane_of(task)).status(task.as_str());
    let stored: Option<String> = link.connection()?.hget(key, "stored").await?;
    Ok(stored.map(|stored| stored == "1"))
}

/// Waits for it; false when it is not known in time. The orchestrator publishes a task's first event, as any other, only
/// behind its commit, so that one tells without a question to Redis.
pub async fn until_stored(
    link: &RedisClient,
    mut watch: Watch,
    task: &TaskId,
    deadline: Instant,
) -> bool {
    loop {
        let item = timeout_at(deadline, watch.next()).await;
        if let Ok(Item::Event(_)) = item {
            return true;
        }
        // Its event may be among those that were missed.
        if let Ok(Some(true)) = is_stored(link, task).await {
            return true;
        }
        if item.is_err() {
            return false;
        }
    }
}
