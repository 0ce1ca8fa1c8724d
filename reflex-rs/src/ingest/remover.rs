//! Removes finished entries from an ingest stream: those that end while a removal is on its way share the next one.

use bus::{ConsumerGroup, StoreError};
use tokio::sync::{mpsc, oneshot};

/// Entries that one command removes.
const MAX_ENTRIES: usize = 512;

/// One finished entry.
struct Job {
    id: String,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// Takes the ids of finished entries.
pub(super) struct Remover(mpsc::Sender<Job>);

/// The loop that removes them.
pub(super) struct Removals {
    group: ConsumerGroup,
    jobs: mpsc::Receiver<Job>,
}

impl Remover {
    /// Returns also the loop.
    pub fn new(group: ConsumerGroup) -> (Self, Removals) {
        let (sender, jobs) = mpsc::channel(MAX_ENTRIES);
        (Self(sender), Removals { group, jobs })
    }

    /// Removes an entry. After an error it may be removed; repeating the call is safe.
    pub async fn remove(&self, id: &str) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let id = id.to_owned();
        // Both fail only when the process stops.
        let stopping = || StoreError::unavailable("this process is stopping");
        let sent = self.0.send(Job { id, reply }).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

impl Removals {
    /// Runs as long as the process. Without its remover it has nothing to do, and says nothing: what dropped the
    /// remover ends the process with the cause, which this loop's end would hide.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.jobs.recv_many(&mut batch, MAX_ENTRIES).await > 0 {
            let (ids, replies): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|job| (job.id, job.reply)).unzip();
            let result = self.group.remove(&ids).await;
            for reply in replies {
                // Fails if the entry's handler was stopped meanwhile.
                let _ = reply.send(result.clone());
            }
        }
        std::future::pending::<()>().await;
    }
}
