//! Redis' clock, so that no decision depends on the clock of this machine.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Redis' time, kept up by this process's monotonic clock between two answers of Redis. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RedisClock(Arc<RwLock<Option<Answer>>>);

#[derive(Debug, Clone, Copy)]
struct Answer {
    /// Since 1970, as Redis said.
    time: Duration,
    at: Instant,
}

impl RedisClock {
    /// Sets the time to what Redis has just answered to `TIME`: seconds since 1970 and microseconds.
    pub(crate) fn sync(&self, (seconds, micros): (u64, u64)) {
        let answer = Answer {
            time: Duration::from_secs(seconds) + Duration::from_micros(micros),
            at: Instant::now(),
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Returns Redis' time in ms since 1970, or `None` if Redis was never reached.
    #[must_use]
    pub fn now_ms(&self) -> Option<u64> {
        let answer = (*self.0.read().unwrap_or_else(PoisonError::into_inner))?;
        u64::try_from((answer.time + answer.at.elapsed()).as_millis()).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::RedisClock;

    #[test]
    fn it_follows_the_last_answer() {
        let clock = RedisClock::default();
        assert_eq!(clock.now_ms(), None);
        for seconds in [1_000_000, 2_000_000, 1_500_000] {
            let begun = Instant::now();
            clock.sync((seconds, 250_000));
            let now = clock.now_ms().unwrap();
            let most = u64::try_from(begun.elapsed().as_millis()).unwrap();
            let answered = seconds * 1000 + 250;
            assert!((answered..=answered + most).contains(&now), "{now}");
        }
    }
}
