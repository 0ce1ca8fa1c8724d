//! How long to wait before trying again after a failure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_secs(2);

/// Exponential backoff with jitter: 50 ms, doubling up to 2 s, each delay cut by a random part of up to half of it.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Start again with the shortest delay. Call it after a success.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next / 2 + random_part(self.next / 2);
        self.next = (self.next * 2).min(MAX);
        delay
    }

    /// Sleep for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }
}

/// A random part of `duration`, to spread the load of many processes over time.
#[must_use]
pub fn random_part(duration: Duration) -> Duration {
    duration.mul_f64(f64::from(random_number()) / f64::from(u32::MAX))
}

/// A random number for jitter. Not for secrets: without a source of randomness it is a constant.
#[must_use]
pub fn random_number() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::{Backoff, FIRST, MAX};

    #[test]
    fn delays_grow_to_a_maximum_and_start_again_after_a_reset() {
        let mut backoff = Backoff::default();
        assert!((FIRST / 2..=FIRST).contains(&backoff.next_delay()));
        assert!((FIRST..=FIRST * 2).contains(&backoff.next_delay()));
        let late: Vec<_> = (0..20).map(|_| backoff.next_delay()).skip(10).collect();
        assert!(late.iter().all(|delay| *delay >= MAX / 2 && *delay <= MAX));
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }
}
