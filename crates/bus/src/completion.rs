//! What is written when an entry is finished, as values; `complete` writes it in the same script call. Pure data.

/// Names and values of a message.
pub type Fields = Vec<(&'static str, Vec<u8>)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Put a message on a stream.
    Publish {
        stream: String,
        /// The field of the in-flight index that shall name the new entry; empty for none.
        in_flight: String,
        fields: Fields,
    },
    /// Put a message on the schedule; `promote` moves it to `stream` when it is due.
    Schedule {
        stream: String,
        delay_ms: u64,
        in_flight: String,
        id: String,
        fields: Fields,
    },
}

/// How an entry is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The step's own field in the in-flight index; empty where the entry cannot be attributed to a step.
    pub in_flight: String,
    pub operations: Vec<Operation>,
    /// Finish it only if its run has ended; otherwise: only if it has not.
    pub only_if_ended: bool,
}

impl Completion {
    /// Of a step that was stopped because its run has ended: removes the entry and publishes nothing.
    #[must_use]
    pub fn run_ended(in_flight: String) -> Self {
        Self {
            in_flight,
            operations: Vec::new(),
            only_if_ended: true,
        }
    }
}
