//! How a delivery ended.

use bus::LeaseState;

/// The label of the metric; the same words as in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    Done,
    Failed,
    Retrying,
    Dead,
    /// Its run has ended; nothing was published.
    RunEnded,
    /// Another worker has the entry; what this one did is discarded.
    Stale,
    Gone,
    /// Not started, or stopped by the end of the process: given back at no cost.
    Released,
    /// The step could not be run and the circuit breaker is open: given back as if it had not been started.
    Returned,
    /// Left pending; another worker reclaims it when its lease ends.
    Abandoned,
}

impl Outcome {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// For what a script answered instead of doing what it was asked to.
impl From<LeaseState> for Outcome {
    fn from(state: LeaseState) -> Self {
        match state {
            LeaseState::Gone => Self::Gone,
            LeaseState::RunEnded => Self::RunEnded,
            LeaseState::Released => Self::Released,
            LeaseState::Valid => Self::Abandoned,
            LeaseState::Done | LeaseState::Stale => Self::Stale,
        }
    }
}
