//! One consumer of one consumer group: create, read, claim, release, complete, remove, pending, leave.
//!
//! Each method is one exchange with Redis; the caller decides how to wait out an outage.

use std::time::Duration;

use contracts::events::Tenant;
use contracts::fairness::TopicLimits;
use contracts::ids::timestamp;
use contracts::keys::{self, LaneKeys};
use contracts::topology::{Ingest, Topic, Topology};
use redis::aio::MultiplexedConnection;
use redis::RedisResult;

use crate::call::ScriptCall;
use crate::client::RedisClient;
use crate::complete_call::complete_call;
use crate::completion::Completion;
use crate::entry::{Entry, StepRun};
use crate::error::StoreError;
use crate::lease::{name_entries, LeaseState};
use crate::script::Script;

/// Pending entries that one look shows.
const PENDING_LIMIT: usize = 1000;

/// An entry as Redis sends it: its id, then names and values in turn.
type RawEntry = (String, Vec<Vec<u8>>);
/// Nothing new, or the entries of each stream.
type ReadAnswer = Option<Vec<(String, Vec<RawEntry>)>>;
/// Entries with their delivery counts, and the ids of those given up on.
type ClaimAnswer = (Vec<(String, u64, Vec<Vec<u8>>)>, Vec<String>, Vec<String>);

/// What `claim` found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    pub entries: Vec<Entry>,
    /// Ids of entries that had been delivered too often and became dead letters.
    pub dead: Vec<String>,
    /// Ids of steps that were removed because their run has ended.
    pub ended: Vec<String>,
}

/// How many entries of other workers a consumer takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLimits {
    /// Of all kinds.
    pub most: usize,
    /// Of those that began elsewhere before, and are no suspects.
    pub started: usize,
    /// Of those with at least the delivery `Topic::suspect_from`.
    pub suspects: usize,
    /// Whether one of the suspects may be at its last delivery. It is claimed together with no other that began before.
    pub last: bool,
}

/// A consumer's place in its group.
#[derive(Debug, Clone)]
pub struct ConsumerGroup {
    pub client: RedisClient,
    /// In the order of reading: high, normal, low.
    pub streams: Vec<String>,
    pub name: String,
    pub consumer: String,
    lease_ms: u64,
    lane: Option<LaneGroup>,
}

/// What a topic in a lane has beyond its streams.
#[derive(Debug, Clone)]
struct LaneGroup {
    keys: LaneKeys,
    max_deliveries: u64,
    suspect_from: u64,
    /// Where the topic has a window or a cap.
    limits: Option<TopicLimits>,
}

impl ConsumerGroup {
    /// The group that works on a topic in one lane.
    #[must_use]
    pub fn of_topic(
        client: RedisClient,
        lane: &LaneKeys,
        topic: &Topic,
        topology: &Topology,
        consumer: &str,
    ) -> Self {
        Self {
            client,
            streams: lane.streams(topic, &topology.priorities),
            name: topic.group.clone(),
            consumer: consumer.to_owned(),
            lease_ms: topic.lease_s * 1000,
            lane: Some(LaneGroup {
                keys: lane.clone(),
                max_deliveries: topic.max_deliveries,
                suspect_from: topic.suspect_from(),
                limits: Some(TopicLimits::new(topology, topic, lane)).filter(TopicLimits::limits),
            }),
        }
    }

    /// The group that reads a tenant's ingest stream. `claim` gives up on nothing here: that is the caller's decision.
    #[must_use]
    pub fn of_ingest(
        client: RedisClient,
        tenant: &Tenant,
        ingest: &Ingest,
        consumer: &str,
    ) -> Self {
        Self {
            client,
            streams: vec![keys::ingest(tenant.as_str())],
            name: ingest.group.clone(),
            consumer: consumer.to_owned(),
            lease_ms: ingest.lease_s * 1000,
            lane: None,
        }
    }

    /// Create the group, and its streams, where they are missing. It starts at the first entry, so that what was written
    /// before is read as well.
    pub async fn create(&self) -> Result<(), StoreError> {
        let mut connection = self.client.connection()?;
        for stream in &self.streams {
            let created: RedisResult<()> = redis::cmd("XGROUP")
                .arg(&["CREATE", stream, &self.name, "0", "MKSTREAM"])
                .query_async(&mut connection)
                .await;
            match created {
                // Another consumer was faster.
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                created => created?,
            }
        }
        Ok(())
    }

    /// Read up to `count` new entries from each of `streams`, on a connection that nothing else uses.
    ///
    /// `block`: how long to wait in Redis while there is nothing. Creates the group where it is missing.
    pub async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        streams: &[String],
        count: usize,
        block: Option<Duration>,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg(&["GROUP", &self.name, &self.consumer])
            .arg("COUNT")
            .arg(count);
        if let Some(block) = block {
            let block_ms = u64::try_from(block.as_millis()).unwrap_or(u64::MAX);
            command.arg("BLOCK").arg(block_ms);
        }
        command
            .arg("STREAMS")
            .arg(streams)
            .arg(vec![">"; streams.len()]);
        let answer: RedisResult<ReadAnswer> = command.query_async(connection).await;
        let found = match answer {
            Err(error) if error.code() == Some("NOGROUP") => {
                self.create().await?;
                return Ok(Vec::new());
            }
            answer => answer?.unwrap_or_default(),
        };
        let entries = found.into_iter().flat_map(|(stream, entries)| {
            let of_stream = entries.into_iter();
            of_stream.map(move |(id, fields)| Entry::new(&stream, id, 1, fields))
        });
        Ok(entries.collect())
    }

    /// Reclaim entries of a stream whose lease has expired or that were released. Only `most` counts on ingest streams.
    pub async fn claim(&self, stream: &str, limits: ClaimLimits) -> Result<Claimed, StoreError> {
        let mut call = ScriptCall::new(Script::Claim);
        call.key(stream);
        if let Some(lane) = &self.lane {
            call.key(lane.keys.dead())
                .key(lane.keys.done())
                .key(lane.keys.in_flight())
                .key(lane.keys.ended_runs());
        }
        call.arg(&self.name)
            .arg(&self.consumer)
            .arg(self.lease_ms)
            // 0: never give up.
            .arg(self.lane.as_ref().map_or(0, |lane| lane.max_deliveries))
            .arg(limits.most)
            .arg(timestamp(self.client.now_ms()?))
            .arg(self.lane.as_ref().map_or(0, |lane| lane.suspect_from))
            .arg(limits.started)
            .arg(limits.suspects)
            .arg(u8::from(limits.last));
        self.describe_limits(&mut call);
        let (entries, dead, ended): ClaimAnswer = self.client.call(&call).await?;
        let entries = entries
            .into_iter()
            .map(|(id, delivery, fields)| Entry::new(stream, id, delivery, fields));
        Ok(Claimed {
            entries: entries.collect(),
            dead,
            ended,
        })
    }

    /// Give entries back as if nobody had tried them, due at once for any consumer. The answers are in order.
    pub async fn release(&self, entries: &[Entry]) -> Result<Vec<LeaseState>, StoreError> {
        let mut call = ScriptCall::new(Script::Release);
        let named = entries
            .iter()
            .map(|entry| (entry.stream.as_str(), entry.id.as_str(), entry.delivery));
        name_entries(&mut call, &self.name, &self.consumer, named);
        self.client.call(&call).await
    }

    /// Finish an entry of a lane and write what its completion holds, all or nothing. Safe to repeat: it writes only while
    /// this consumer holds the entry at this delivery.
    pub async fn complete(
        &self,
        entry: &Entry,
        run: Option<&StepRun>,
        completion: &Completion,
    ) -> Result<LeaseState, StoreError> {
        let Some(lane) = &self.lane else {
            return Err(StoreError::unexpected_answer(
                "an ingest entry is removed, not completed",
            ));
        };
        let mut call = complete_call(
            &lane.keys,
            &self.name,
            &self.consumer,
            entry,
            run,
            completion,
        );
        self.describe_limits(&mut call);
        let states: Vec<LeaseState> = self.client.call(&call).await?;
        let state = states.first().copied();
        state.ok_or_else(|| StoreError::unexpected_answer("complete gave no answer"))
    }

    /// Take finished entries, named by their ids, off an ingest stream.
    pub async fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        let stream = &self.streams[0];
        // Without MULTI, whose EXECABORT would hide a refusal. In this order nothing is left behind: `claim` drops a
        // pending entry that no longer exists.
        redis::pipe()
            .cmd("XDEL")
            .arg(stream)
            .arg(ids)
            .cmd("XACK")
            .arg(&[stream, &self.name])
            .arg(ids)
            .exec_async(&mut self.client.connection()?)
            .await?;
        Ok(())
    }

    /// The entries that Redis has recorded for this consumer, without their fields.
    pub async fn pending(&self) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::new();
        for stream in &self.streams {
            let mut command = redis::cmd("XPENDING");
            command
                .arg(&[stream, &self.name, "-", "+"])
                .arg(PENDING_LIMIT)
                .arg(&self.consumer);
            let pending: Vec<(String, String, u64, u64)> = self.client.query(&command).await?;
            let entries = pending.into_iter();
            found.extend(
                entries.map(|(id, _, _, delivery)| Entry::new(stream, id, delivery, Vec::new())),
            );
        }
        Ok(found)
    }

    /// Leave the group, unless it still records entries for this consumer.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let mut call = ScriptCall::new(Script::LeaveGroup);
        call.keys(&self.streams).arg(&self.name).arg(&self.consumer);
        self.client.call::<redis::Value>(&call).await.map(drop)
    }

    /// Must come last: the description names the keys that it appends.
    fn describe_limits(&self, call: &mut ScriptCall) {
        if let Some(limits) = self.lane.as_ref().and_then(|lane| lane.limits.as_ref()) {
            let args = limits.args(call.key_count());
            call.keys(limits.keys()).arg(args);
        }
    }
}
