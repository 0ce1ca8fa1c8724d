//! Reads a topic's streams in one lane by the hand-off protocol: read, claim, renew, release, leave.
//!
//! Each call is one step in Redis; who calls knows how to wait out trouble.

pub mod control;
mod entry;
pub mod leases;
pub mod link;
pub mod pause;
mod reply;

pub use entry::{Entry, Marker};
pub use reply::{standings, Standing};

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use bus::Script;
use contracts::fairness::Described;
use contracts::ids::utc_now;
use contracts::keys::LaneKeys;
use contracts::topology::{Topic, Topology};
use redis::{RedisResult, Value};

use crate::sink::operations::Call;
use link::Link;
use reply::{entry, items, pairs, text};

/// How long an idle read waits in Redis; also how long a shutdown waits for one.
const BLOCK_MS: u64 = 1000;

/// One consumer of one topic in one lane.
#[derive(Debug)]
pub struct Source {
    pub keys: LaneKeys,
    pub topic: Arc<Topic>,
    pub consumer: String,
    /// In the order of reading: high, normal, low.
    pub streams: Vec<String>,
    /// Where the topic has a window or a cap.
    pub limited: Option<Described>,
    /// How often the streams were asked one after the other.
    looks: AtomicUsize,
    /// More than one priority had more than its share at the last look.
    crowded: AtomicBool,
    /// Blocked by reads, so nothing else uses it.
    reading: Link,
    pub calls: Arc<Link>,
}

impl Source {
    #[must_use]
    pub fn new(
        lane: &str,
        topology: &Topology,
        topic: Arc<Topic>,
        consumer: String,
        reading: Link,
        calls: Arc<Link>,
    ) -> Self {
        let keys = LaneKeys::new(lane);
        Self {
            streams: keys.streams(&topic, &topology.priorities),
            limited: Some(Described::new(topology, &topic, &keys)).filter(Described::limits),
            looks: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            keys,
            topic,
            consumer,
            reading,
            calls,
        }
    }

    /// Groups that start at the first entry, on streams that may not exist yet.
    pub async fn create_groups(&self) -> RedisResult<()> {
        for stream in &self.streams {
            let mut command = redis::cmd("XGROUP");
            command
                .arg("CREATE")
                .arg(stream)
                .arg(&self.topic.group)
                .arg("0")
                .arg("MKSTREAM");
            match self.calls.command(&command).await {
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                answer => drop(answer?),
            }
        }
        Ok(())
    }

    /// New entries, about as many as there is `room` for. COUNT counts per stream, so where there is little room or much
    /// work one stream is asked after the other, high first but now and then another, so that none starves; when all
    /// are empty, one entry per stream may come at once.
    pub async fn read(&self, room: usize) -> RedisResult<Vec<Entry>> {
        let each = room / self.streams.len();
        let crowded = self.crowded.load(Ordering::Relaxed);
        if each > 0 && !crowded {
            let found = self.read_from(&self.streams, each, true).await?;
            let full = |stream: &&String| {
                found.iter().filter(|one| one.stream == **stream).count() == each
            };
            let crowded = self.streams.iter().filter(full).count() > 1;
            self.crowded.store(crowded, Ordering::Relaxed);
            return Ok(found);
        }
        let first = first_asked(
            self.looks.fetch_add(1, Ordering::Relaxed),
            self.streams.len(),
        );
        let (later, sooner) = self.streams.split_at(first);
        for stream in sooner.iter().chain(later) {
            let found = self
                .read_from(std::slice::from_ref(stream), room, false)
                .await?;
            if !found.is_empty() {
                self.crowded
                    .store(crowded && found.len() == room, Ordering::Relaxed);
                return Ok(found);
            }
        }
        self.crowded.store(false, Ordering::Relaxed);
        self.read_from(&self.streams, 1, true).await
    }

    async fn read_from(
        &self,
        streams: &[String],
        count: usize,
        block: bool,
    ) -> RedisResult<Vec<Entry>> {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&self.topic.group)
            .arg(&self.consumer)
            .arg("COUNT")
            .arg(count);
        if block {
            command.arg("BLOCK").arg(BLOCK_MS);
        }
        command
            .arg("STREAMS")
            .arg(streams)
            .arg(vec![">"; streams.len()]);
        let answer = self.reading.command(&command).await?;
        let found = items(&answer).iter().flat_map(|stream| {
            let [name, entries] = items(stream) else {
                return Vec::new();
            };
            items(entries)
                .iter()
                .filter_map(|one| entry(&text(name), one, 1))
                .collect()
        });
        Ok(found.collect())
    }

    /// Takes over at most `most` entries that nobody works on; also the ids of those given up on at the cap.
    pub async fn claim(&self, stream: &str, most: usize) -> RedisResult<(Vec<Entry>, Vec<String>)> {
        let keys = [
            stream.to_owned(),
            self.keys.dead(),
            self.keys.done(),
            self.keys.in_flight(),
        ];
        let mut call = Call::default();
        call.arg(&self.topic.group);
        call.arg(&self.consumer);
        call.arg(self.topic.lease_s * 1000);
        call.arg(self.topic.max_deliveries);
        call.arg(most);
        call.arg(utc_now());
        call.keys = keys.to_vec();
        if let Some(topic) = &self.limited {
            call.describe(topic);
        }
        let answer = self
            .calls
            .script(Script::Claim, &call.keys, &call.args)
            .await?;
        let [claimed, dead] = items(&answer) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let entries = items(claimed).iter().filter_map(|one| {
            let [id, Value::Int(delivery), fields] = items(one) else {
                return None;
            };
            Some(Entry {
                stream: stream.to_owned(),
                id: text(id),
                delivery: u64::try_from(*delivery).ok()?,
                fields: pairs(fields),
            })
        });
        Ok((entries.collect(), items(dead).iter().map(text).collect()))
    }

    /// Gives back entries as if nobody had tried them: released, stale or gone for each, in order.
    pub async fn release(&self, entries: &[Entry]) -> RedisResult<Vec<Standing>> {
        let call = held_call(
            &self.topic.group,
            &self.consumer,
            entries
                .iter()
                .map(|one| (&one.stream, &one.id, one.delivery)),
        );
        let answer = self
            .calls
            .script(Script::Release, &call.keys, &call.args)
            .await?;
        Ok(standings(&answer))
    }

    /// What Redis says this consumer holds.
    pub async fn pending(&self) -> RedisResult<Vec<Entry>> {
        let mut found = Vec::new();
        for stream in &self.streams {
            let mut command = redis::cmd("XPENDING");
            command
                .arg(stream)
                .arg(&self.topic.group)
                .arg("-")
                .arg("+")
                .arg(1000)
                .arg(&self.consumer);
            let answer = self.calls.command(&command).await?;
            found.extend(items(&answer).iter().filter_map(|one| {
                let [id, _, _, Value::Int(delivery)] = items(one) else {
                    return None;
                };
                Some(Entry {
                    stream: stream.clone(),
                    id: text(id),
                    delivery: u64::try_from(*delivery).ok()?,
                    fields: Vec::new(),
                })
            }));
        }
        Ok(found)
    }

    /// Deletes this consumer where it owns nothing.
    pub async fn leave(&self) -> RedisResult<()> {
        let mut call = Call::default();
        call.arg(&self.topic.group);
        call.arg(&self.consumer);
        self.calls
            .script(Script::LeaveGroup, &self.streams, &call.args)
            .await
            .map(drop)
    }
}

/// Which of the streams is asked first: of eight looks one begins with the last, one with the one before it, and six
/// with the first.
fn first_asked(look: usize, streams: usize) -> usize {
    match look % 8 {
        3 => streams.saturating_sub(2),
        7 => streams.saturating_sub(1),
        _ => 0,
    }
}

/// KEYS and ARGV of `renew` and `release`.
pub(crate) fn held_call<'a>(
    group: &str,
    consumer: &str,
    entries: impl ExactSizeIterator<Item = (&'a String, &'a String, u64)>,
) -> Call {
    let mut call = Call::default();
    call.arg(group);
    call.arg(consumer);
    call.arg(entries.len());
    for (stream, id, delivery) in entries {
        let index = call.key(stream);
        call.arg(index);
        call.arg(id);
        call.arg(delivery);
    }
    call
}

#[cfg(test)]
mod tests {
    use super::first_asked;

    #[test]
    fn each_stream_comes_first_now_and_then() {
        let order: Vec<usize> = (0..8).map(|look| first_asked(look, 3)).collect();
        assert_eq!(order, [0, 0, 0, 1, 0, 0, 0, 2]);
        assert!((0..8).all(|look| first_asked(look, 1) == 0));
    }
}
