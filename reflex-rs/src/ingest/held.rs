//! The entries this consumer is working on, with their deliveries, so that leases can be renewed and lost work ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

type Map = HashMap<String, (u64, Option<AbortHandle>)>;

/// Shared by the consumer and its handlers.
#[derive(Clone, Default)]
pub(super) struct Held(Arc<Mutex<Map>>);

impl Held {
    /// Notes an entry; none if it is in our hands already. Dropping the mark forgets it.
    pub fn take(&self, id: &str, delivery: u64) -> Option<Mark> {
        let mut map = self.map();
        if let Some((known, _)) = map.get_mut(id) {
            // A takeover from ourselves: the same handler goes on, under the new count.
            *known = delivery;
            return None;
        }
        map.insert(id.to_owned(), (delivery, None));
        Some(Mark {
            held: self.clone(),
            id: id.to_owned(),
        })
    }

    /// How to end the entry's handler.
    pub fn set_handler(&self, id: &str, handler: AbortHandle) {
        // It may have ended already.
        if let Some((_, slot)) = self.map().get_mut(id) {
            *slot = Some(handler);
        }
    }

    /// Ends the handlers of entries that are ours no more.
    pub fn lost(&self, ids: &[String]) {
        let map = self.map();
        for (_, handler) in ids.iter().filter_map(|id| map.get(id)) {
            if let Some(handler) = handler {
                handler.abort();
            }
        }
    }

    /// Every entry with its delivery count.
    pub fn list(&self) -> Vec<(String, u64)> {
        let map = self.map();
        map.iter()
            .map(|(id, (delivery, _))| (id.clone(), *delivery))
            .collect()
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands for one entry in our hands.
pub(super) struct Mark {
    held: Held,
    id: String,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.held.map().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::Held;

    #[test]
    fn an_entry_is_held_once_and_until_its_mark_is_dropped() {
        let held = Held::default();
        let mark = held.take("1-0", 1);
        assert!(mark.is_some());
        assert!(held.take("1-0", 2).is_none());
        assert_eq!(held.list(), [("1-0".to_owned(), 2)]);
        drop(mark);
        assert!(held.list().is_empty());
    }
}
