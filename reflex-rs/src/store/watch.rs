//! Distributes events to the subscribers of their task, within this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contracts::events::{TaskEvent, TaskId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// How many events of one task a subscriber may lag behind. Beyond that it reads the history again.
const CAPACITY: usize = 256;

/// What a subscriber receives.
#[derive(Debug, Clone)]
pub enum Item {
    Event(Arc<TaskEvent>),
    /// Events may have been missed; the history has them.
    Gap,
}

type Senders = HashMap<String, broadcast::Sender<Item>>;

/// The subscribers of all tasks, by task id.
#[derive(Default)]
pub struct Watchers(Mutex<Senders>);

impl Watchers {
    /// Subscribes to a task's events.
    pub fn subscribe(self: &Arc<Self>, task: &TaskId) -> Watch {
        let receiver = self
            .lock()
            .entry(task.as_str().to_owned())
            .or_insert_with(|| broadcast::Sender::new(CAPACITY))
            .subscribe();
        Watch {
            watchers: Arc::clone(self),
            task: task.as_str().to_owned(),
            receiver,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Runs `action` if nobody has subscribed; nobody can subscribe meanwhile. Returns whether it ran.
    pub fn if_empty(&self, action: impl FnOnce()) -> bool {
        let senders = self.lock();
        if senders.is_empty() {
            action();
        }
        senders.is_empty()
    }

    /// Sends an event to the task's subscribers; `event` is called only if there are any.
    pub fn send(&self, task: &str, event: impl FnOnce() -> Option<TaskEvent>) {
        let senders = self.lock();
        if let Some(sender) = senders.get(task) {
            if let Some(event) = event() {
                // Fails only if the last subscriber is just leaving.
                let _ = sender.send(Item::Event(Arc::new(event)));
            }
        }
    }

    /// Tells every subscriber that it may have missed events.
    pub fn send_gap(&self) {
        for sender in self.lock().values() {
            let _ = sender.send(Item::Gap);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Senders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscription to one task's events; ends when dropped.
pub struct Watch {
    watchers: Arc<Watchers>,
    task: String,
    receiver: broadcast::Receiver<Item>,
}

impl Watch {
    /// Waits for the next item. A subscriber that lagged too far behind receives a gap.
    pub async fn next(&mut self) -> Item {
        match self.receiver.recv().await {
            Ok(item) => item,
            // The sender lives as long as this subscription, so it cannot be closed.
            Err(RecvError::Lagged(_) | RecvError::Closed) => Item::Gap,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut senders = self.watchers.lock();
        let is_last = senders
            .get(&self.task)
            .is_some_and(|sender| sender.receiver_count() == 1);
        if is_last {
            senders.remove(&self.task);
        }
    }
}
