//! Whether a step's run goes on, by the marks and the clock of Redis.

use crate::client::RedisClient;
use crate::entry::StepRun;
use crate::error::StoreError;

/// What Redis says about a run at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunState {
    /// Its steps must neither start nor go on.
    pub ended: bool,
    /// The server's time in ms since 1970; no process's own clock decides about a deadline.
    pub now_ms: u64,
}

impl RunState {
    /// Ask for the state of a run.
    pub async fn of(client: &RedisClient, run: &StepRun) -> Result<Self, StoreError> {
        let member = format!("{} {}", run.run, run.tenant);
        let (kept_until, now): (Option<f64>, (u64, u64)) = redis::pipe()
            .cmd("ZSCORE")
            .arg(&[&run.ended_runs, &member])
            .cmd("TIME")
            .query_async(&mut client.connection()?)
            .await?;
        Ok(Self::new(kept_until, now))
    }

    /// `kept_until`: until when the mark of the ended run counts, in s since 1970. `now`: seconds and microseconds.
    #[allow(clippy::cast_precision_loss)] // seconds since 1970 are far below 2^52
    fn new(kept_until: Option<f64>, (seconds, micros): (u64, u64)) -> Self {
        Self {
            ended: kept_until.is_some_and(|until| until > seconds as f64),
            now_ms: seconds * 1000 + micros / 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RunState;

    #[test]
    fn a_mark_counts_until_its_time() {
        let ended = |until| RunState::new(until, (1000, 7_000)).ended;
        assert!(ended(Some(1001.0)) && !ended(Some(1000.0)) && !ended(None));
        assert_eq!(RunState::new(None, (1000, 7_999)).now_ms, 1_000_007);
    }
}
