//! How long to wait while Redis is in trouble: longer each time, and never all workers at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// One loop's pauses; `over` after a success.
#[derive(Debug, Default)]
pub struct Pause {
    taken: u32,
}

impl Pause {
    /// It worked again.
    pub fn over(&mut self) {
        self.taken = 0;
    }

    /// Half to all of a span that doubles each time.
    pub fn take(&mut self) -> Duration {
        let span = FIRST.saturating_mul(1 << self.taken.min(10)).min(LONGEST);
        self.taken = self.taken.saturating_add(1);
        span / 2 + share(span / 2)
    }

    pub async fn wait(&mut self) {
        tokio::time::sleep(self.take()).await;
    }
}

/// A random part of a span.
#[must_use]
pub fn share(of: Duration) -> Duration {
    of.mul_f64(f64::from(chance()) / f64::from(u32::MAX))
}

/// Any number. Spreads load and keeps no secret, so that a machine without randomness still works.
#[must_use]
pub fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::{Pause, LONGEST};
    use std::time::Duration;

    #[test]
    fn grows_to_its_longest_and_starts_again() {
        let mut pause = Pause::default();
        assert!(pause.take() <= Duration::from_millis(50));
        for _ in 0..20 {
            pause.take();
        }
        let late = pause.take();
        assert!(late <= LONGEST && late >= LONGEST / 2);
        pause.over();
        assert!(pause.take() <= Duration::from_millis(50));
    }
}
