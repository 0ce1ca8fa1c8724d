//! Follows the event streams: one reader per lane, however many clients watch. A reader reads only while there are watchers.
//!
//! A watcher receives every event of its task that is published after `watch` returns, or a `Gap` if some may have been
//! missed. What happened before, and what a gap hides, it reads from the history.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::events::TaskId;
use contracts::ids;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;
use redis::aio::MultiplexedConnection;
use service::Supervisor;
use tokio::sync::{watch, Notify};

use super::history::{field, parse, Fields};
use crate::store::{StoreError, Watch, Watchers};
use bus::{Backoff, RedisClient, Refusal};

/// How long one read waits for entries.
const BLOCK: Duration = Duration::from_secs(2);
/// How long the reader goes on without watchers: the next one often comes soon.
const LINGER: Duration = Duration::from_secs(10);
/// How long a new watcher waits for the reader.
const START_TIMEOUT: Duration = Duration::from_millis(950);
/// Entries in one read.
const CHUNK: usize = 500;

/// The answer of XREAD: nothing, or the entries of each stream.
type Read = Option<Vec<(String, Vec<(String, Fields)>)>>;

/// The readers of all lanes.
pub(super) struct Tail {
    lanes: HashMap<String, Arc<Lane>>,
}

/// The event stream of one lane and the watchers of its tasks.
struct Lane {
    redis: RedisClient,
    key: String,
    watchers: Arc<Watchers>,
    wake: Notify,
    /// Whether every entry from now on is seen. Turned off after an error, and while there are provably no watchers.
    live: watch::Sender<bool>,
}

impl Tail {
    /// Starts a reader per lane. Each sleeps until there is a watcher.
    #[must_use]
    pub fn start(redis: &RedisClient, topology: &Topology, supervisor: &Supervisor) -> Self {
        let lanes = topology.lanes.iter().map(|name| {
            let lane = Arc::new(Lane {
                redis: redis.clone(),
                key: LaneKeys::new(name.as_str()).events(),
                watchers: Arc::default(),
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

    /// Watches a task; returns once no published event can be missed.
    pub async fn watch(&self, task: &TaskId) -> Result<Watch, StoreError> {
        let unavailable = |why: &str| {
            StoreError::unavailable(format!("the event stream cannot be followed: {why}"))
        };
        let lane = self
            .lanes
            .get(ids::lane_of(task))
            .ok_or_else(|| unavailable("the topology does not have this lane"))?;
        let watch = lane.watchers.subscribe(task);
        lane.wake.notify_one();
        let mut live = lane.live.subscribe();
        match tokio::time::timeout(START_TIMEOUT, live.wait_for(|live| *live)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(unavailable("its reader does not start")),
        }
        Ok(watch)
    }
}

impl Lane {
    /// Runs as long as the process. Ends only if Redis refuses to let it read.
    async fn run(self: Arc<Self>) -> Result<(), Refusal> {
        let mut backoff = Backoff::default();
        let mut interrupted = false;
        loop {
            if self.watchers.is_empty() {
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
                    error.check_transient(format!("read {}", self.key))?;
                    // The Redis client reports an outage once.
                    tracing::debug!(stream = self.key, %error, "cannot follow the event stream; trying again");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Reads until there has been no watcher for a while. Watchers from before an interruption may have missed events; new
    /// ones read the history anyway.
    async fn follow(&self, interrupted: bool) -> Result<(), StoreError> {
        let mut connection = self.redis.dedicated(BLOCK).await?;
        let mut last = self.newest(&mut connection).await?;
        if interrupted {
            self.watchers.send_gap();
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
            let idle = deserted.get_or_insert_with(Instant::now).elapsed() >= LINGER;
            let empty = self.watchers.if_empty(|| {
                if idle {
                    self.live.send_replace(false);
                }
            });
            match (empty, idle) {
                (true, true) => return Ok(()),
                (true, false) => {}
                (false, _) => deserted = None,
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
        self.watchers.send(task, || parse(entry, fields));
    }
}
