//! Puts a dead letter on the dead stream of its lane.

use contracts::events::{DeadLetter, Event};
use contracts::keys::LaneKeys;

use crate::admission::Letter;
use bus::{RedisClient, StoreError};

/// Adds the letter. After an error it may have been added: sent again, it stands there twice, which is better than never.
pub async fn bury(link: &RedisClient, letter: &Letter) -> Result<(), StoreError> {
    redis::cmd("XADD")
        .arg(LaneKeys::new(letter.lane.as_str()).dead())
        .arg("*")
        .arg(&["type", DeadLetter::TYPE, "id", ""])
        .arg(&["tenant", letter.tenant.as_str()])
        .arg(&["traceparent", letter.traceparent.as_str()])
        .arg("body")
        .arg(&letter.body)
        .arg("original")
        .arg(&letter.original)
        .query_async::<()>(&mut link.connection()?)
        .await?;
    Ok(())
}
