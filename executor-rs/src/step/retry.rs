//! Decides whether and when a failed step is tried again.

use contracts::topology::Retry;

/// What to do after a transient failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Retry {
        delay_ms: u64,
    },
    /// It has failed as often as the topic allows.
    GiveUp,
}

/// `failures`: including this one, from 1; `chance` any number: its share of the whole range decides.
///
/// Exponential with full jitter: anything from nothing to the whole pause, so that steps which failed together do not
/// come back together.
#[must_use]
pub fn decide(policy: Retry, failures: u64, chance: u32) -> Decision {
    if failures >= policy.max_failures {
        return Decision::GiveUp;
    }
    let doublings = u32::try_from(failures.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(40);
    let ceiling = policy
        .base_ms
        .saturating_mul(1 << doublings)
        .min(policy.cap_ms);
    let delay = u128::from(ceiling) * u128::from(chance) / (u128::from(u32::MAX) + 1);
    Decision::Retry {
        delay_ms: u64::try_from(delay).unwrap_or(ceiling),
    }
}

#[cfg(test)]
mod tests {
    use super::{decide, Decision, Retry};

    const POLICY: Retry = Retry {
        max_failures: 5,
        base_ms: 500,
        cap_ms: 1500,
    };

    fn longest(failures: u64) -> Decision {
        decide(POLICY, failures, u32::MAX)
    }

    #[test]
    fn the_pause_doubles_up_to_its_cap_and_starts_at_nothing() {
        assert_eq!(longest(1), Decision::Retry { delay_ms: 499 });
        assert_eq!(longest(2), Decision::Retry { delay_ms: 999 });
        assert_eq!(longest(4), Decision::Retry { delay_ms: 1499 });
        assert_eq!(decide(POLICY, 4, 0), Decision::Retry { delay_ms: 0 });
    }

    #[test]
    fn the_last_allowed_failure_gives_up() {
        assert_eq!(longest(5), Decision::GiveUp);
        assert_eq!(longest(6), Decision::GiveUp);
    }

    #[test]
    fn huge_policies_do_not_overflow() {
        let policy = Retry {
            max_failures: 1000,
            base_ms: u64::MAX / 2,
            cap_ms: u64::MAX,
        };
        assert!(matches!(
            decide(policy, 999, u32::MAX),
            Decision::Retry { .. }
        ));
    }
}
