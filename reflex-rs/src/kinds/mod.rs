//! The kinds of tasks that the orchestrator can plan, as it publishes them in Redis with the JSON Schema of each kind's input.
//!
//! | file | owns |
//! |---|---|
//! | `follow` | reads what is published, about once a second and never within a request |
//! | `table` | the compiled schemas, and whether a submission fits them |
//! | `violation` | what the sender of a submission that does not fit gets |
//! | `near_miss` | the name that was probably meant |
//!
//! The orchestrator checks each task again with its own recipes, so a table that is older or newer than those can refuse or
//! admit a task that the other would not, but never lets a wrong input reach an arm.

mod follow;
mod near_miss;
mod table;
mod violation;

use std::sync::{Arc, PoisonError, RwLock};

pub use table::{KindsError, Table};
pub use violation::Violation;

/// The newest table that was read. Cheap to ask: one lock that is only ever held to copy a pointer.
#[derive(Debug, Default)]
pub struct Kinds {
    current: RwLock<Option<Arc<Table>>>,
}

impl Kinds {
    /// Returns the newest table, or `None` as long as nothing is published. Everything is admitted then, and the orchestrator
    /// decides.
    #[must_use]
    pub fn table(&self) -> Option<Arc<Table>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Replaces the table for all submissions from now on.
    pub fn replace(&self, table: Option<Table>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = table.map(Arc::new);
    }
}
