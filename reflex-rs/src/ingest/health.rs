//! Which ingest streams cannot be read because of what a producer has put there, and why.
//!
//! Producers write to these keys themselves, so a wrong one must not end the program for all others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Written by the consumers, read by the readiness probe.
#[derive(Debug, Default)]
pub struct IngestHealth(Mutex<BTreeMap<String, String>>);

impl IngestHealth {
    /// Returns one sentence for each stream that cannot be read.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.lock();
        let sentence = |(stream, reason)| format!("the stream {stream} cannot be read: {reason}");
        reasons.iter().map(sentence).collect()
    }

    pub(super) fn failed(&self, stream: &str, reason: String) {
        self.lock().insert(stream.to_owned(), reason);
    }

    pub(super) fn succeeded(&self, stream: &str) {
        self.lock().remove(stream);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
