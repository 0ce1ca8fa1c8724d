//! Waiting for what becomes of the entries of an ingest stream.

use super::{until, Redis};

pub const INGEST: &str = "ingest:default";

/// Waits until the stream has `count` entries.
pub fn wait_for(redis: &Redis, key: &str, count: usize) {
    until(&format!("{key} has {count}"), || {
        (redis.length(key) >= count).then_some(())
    });
    assert_eq!(redis.length(key), count);
}

/// Waits until the ingest stream is empty and nothing is pending.
pub fn wait_until_done(redis: &Redis) {
    until("the ingest stream is empty", || {
        (redis.length(INGEST) == 0).then_some(())
    });
    let pending: (i64, Option<String>, Option<String>, redis::Value) =
        redis.ask(&format!("XPENDING|{INGEST}|reflex"));
    assert_eq!(pending.0, 0);
}
