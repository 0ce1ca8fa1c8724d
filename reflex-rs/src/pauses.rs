//! How long to wait while a store is in trouble: longer each time, and never all processes at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// One loop's pauses.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Pauses {
    /// It worked again: the next pause is short.
    pub fn over(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait now: half to all of the present length, which doubles.
    pub fn take(&mut self) -> Duration {
        // Without random numbers all wait the full length, which is slow but not wrong.
        let share = getrandom::u32().unwrap_or(u32::MAX);
        let pause = self
            .next
            .mul_f64(0.5 + 0.5 * f64::from(share) / f64::from(u32::MAX));
        self.next = (self.next * 2).min(LONGEST);
        pause
    }

    pub async fn wait(&mut self) {
        tokio::time::sleep(self.take()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{Pauses, FIRST, LONGEST};

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew() {
        let mut pauses = Pauses::default();
        assert!((FIRST / 2..=FIRST).contains(&pauses.take()));
        assert!((FIRST..=FIRST * 2).contains(&pauses.take()));
        let late: Vec<_> = (0..20).map(|_| pauses.take()).skip(10).collect();
        assert!(late
            .iter()
            .all(|pause| (LONGEST / 2..=LONGEST).contains(pause)));
        assert!(late.windows(2).any(|pair| pair[0] != pair[1]), "no jitter");
        pauses.over();
        assert!(pauses.take() <= FIRST);
    }
}
