//! Follows the live events: one reader per lane, however many watch. It reads only while somebody does.
//!
//! A watcher gets every event of its task that is published from the moment `watch` returns, or a `Gap` where some may have
//! been missed; what lies before, and what a gap hid, it reads from the history.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contracts::events::{TaskEvent, TaskId};
use contracts::ids;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;
use redis::aio::MultiplexedConnection;
use service::Supervisor;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch, Notify};

use super::events::{field, parse, Fields};
use bus::Backoff;
use bus::{RedisClient, StoreError};

/// Longest a read waits for entries.
const BLOCK: Duration = Duration::from_secs(2);
/// How long the reader goes on without watchers: the next one often comes soon.
const LINGER: Duration = Duration::from_secs(10);
/// Longest a new watcher waits for the reader.
const PATIENCE: Duration = Duration::from_secs(5);
/// Entries in one read.
const CHUNK: usize = 500;
/// Events of one task that a watcher may lag behind; beyond, it reads the history again.
const KEPT: usize = 256;

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum Item {
    Event(Arc<TaskEvent>),
    /// Events may have been missed.
    Gap,
}

/// Nothing, or per stream its entries.
type Read = Option<Vec<(String, Vec<(String, Fields)>)>>;
type Watchers = HashMap<String, broadcast::Sender<Item>>;

/// The readers of all lanes.
pub struct Tail {
    lanes: HashMap<String, Arc<Lane>>,
}

/// One lane's stream and who watches tasks of it.
struct Lane {
    link: RedisClient,
    key: String,
    watchers: Mutex<Watchers>,
    wake: Notify,
    /// Whether every entry from now on is seen. Turned off only while `watchers` is locked and empty, or after trouble.
    live: watch::Sender<bool>,
}

impl Tail {
    /// Starts a reader per lane; each sleeps until somebody watches.
    #[must_use]
    pub fn start(link: &RedisClient, topology: &Topology, supervisor: &Supervisor) -> Self {
        let lanes = topology.lanes.iter().map(|name| {
            let lane = Arc::new(Lane {
                link: link.clone(),
                key: LaneKeys::new(name.as_str()).events(),
                watchers: Mutex::default(),
                wake: Notify::new(),
                live: watch::Sender::new(false),
            });
            supervisor.spawn_loop("event reader", Arc::clone(&lane).run());
            (name.clone(), lane)
        });
        Self {
            lanes: lanes.collect(),
        }
    }

    /// Watches a task; comes back once nothing published can be missed.
    pub async fn watch(&self, task: &TaskId) -> Result<Watch, StoreError> {
        let name = ids::lane_of(task);
        let away = |why: &str| {
            StoreError::unavailable(format!("the live events cannot be followed: {why}"))
        };
        let lane = self
            .lanes
            .get(name)
            .ok_or_else(|| away("the topology has no such lane"))?;
        let receiver = lane
            .lock()
            .entry(task.as_str().to_owned())
            .or_insert_with(|| broadcast::Sender::new(KEPT))
            .subscribe();
        let watch = Watch {
            lane: Arc::clone(lane),
            task: task.as_str().to_owned(),
            receiver,
        };
        lane.wake.notify_one();
        let mut live = lane.live.subscribe();
        match tokio::time::timeout(PATIENCE, live.wait_for(|live| *live)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(away("its reader does not start")),
        }
        Ok(watch)
    }
}

/// A subscription; ends when dropped.
pub struct Watch {
    lane: Arc<Lane>,
    task: String,
    receiver: broadcast::Receiver<Item>,
}

impl Watch {
    /// Waits for what comes next. Whoever lagged behind gets a gap.
    pub async fn next(&mut self) -> Item {
        match self.receiver.recv().await {
            Ok(item) => item,
            // Closed cannot be: the sender stays until this is dropped.
            Err(RecvError::Lagged(_) | RecvError::Closed) => Item::Gap,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = self.lane.lock();
        let last = watchers
            .get(&self.task)
            .is_some_and(|sender| sender.receiver_count() == 1);
        if last {
            watchers.remove(&self.task);
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs as long as the process.
    async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        let mut interrupted = false;
        loop {
            if self.lock().is_empty() {
                self.wake.notified().await;
                continue;
            }
            match self.follow(interrupted).await {
                Ok(()) => {
                    interrupted = false;
                    backoff.reset();
                }
                Err(error) => {
                    interrupted = true;
                    self.live.send_replace(false);
                    // A Redis that is away is reported once, by `store`.
                    tracing::debug!(%error, "the live events cannot be followed; trying again");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Reads until nobody has watched for a while. Watchers from before an interruption may have missed something; new ones
    /// read the history anyway.
    async fn follow(&self, interrupted: bool) -> Result<(), StoreError> {
        let mut connection = self.link.dedicated(BLOCK).await?;
        let mut last = self.newest(&mut connection).await?;
        if interrupted {
            self.tell_all(&Item::Gap);
        }
        self.live.send_replace(true);
        let mut deserted: Option<Instant> = None;
        loop {
            let read: Read = redis::cmd("XREAD")
                .arg("COUNT")
                .arg(CHUNK)
                .arg("BLOCK")
                .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
                .arg(&["STREAMS", &self.key, &last])
                .query_async(&mut connection)
                .await?;
            for (id, fields) in read.into_iter().flatten().flat_map(|(_, entries)| entries) {
                self.deliver(&id, &fields);
                last = id;
            }
            let watchers = self.lock();
            if !watchers.is_empty() {
                deserted = None;
            } else if deserted.get_or_insert_with(Instant::now).elapsed() >= LINGER {
                self.live.send_replace(false);
                return Ok(());
            }
        }
    }

    async fn newest(&self, connection: &mut MultiplexedConnection) -> Result<String, StoreError> {
        let newest: Vec<(String, Fields)> = redis::cmd("XREVRANGE")
            .arg(&[&self.key, "+", "-", "COUNT", "1"])
            .query_async(connection)
            .await?;
        Ok(newest
            .into_iter()
            .next()
            .map_or_else(|| "0-0".to_owned(), |(id, _)| id))
    }

    fn deliver(&self, entry: &str, fields: &Fields) {
        let Some(task) = field(fields, b"id").and_then(|id| std::str::from_utf8(id).ok()) else {
            return;
        };
        let watchers = self.lock();
        if let Some(sender) = watchers.get(task) {
            if let Some(event) = parse(entry, fields) {
                // Nobody there any more is no failure.
                let _ = sender.send(Item::Event(Arc::new(event)));
            }
        }
    }

    fn tell_all(&self, item: &Item) {
        for sender in self.lock().values() {
            let _ = sender.send(item.clone());
        }
    }
}
