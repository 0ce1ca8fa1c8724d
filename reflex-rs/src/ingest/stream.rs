//! The Redis commands on one ingest stream. It lies outside the lanes, so nothing here touches a lane's keys.

use std::time::Duration;

use bus::Script;
use contracts::events::Tenant;
use contracts::keys;
use contracts::topology::Ingest;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult, Value};

use super::Entry;
use bus::{RedisClient, StoreError};

/// Longest a read waits for entries; also how long a stop may have to wait at worst.
pub(super) const BLOCK: Duration = Duration::from_secs(2);

/// One tenant's stream and this consumer's place in its group.
pub(super) struct Stream {
    pub key: String,
    pub group: String,
    pub consumer: String,
    lease_ms: u64,
    link: RedisClient,
    claim: redis::Script,
    renew: redis::Script,
    release: redis::Script,
    leave: redis::Script,
}

/// How Redis writes an entry: its id, then names and values in turn.
type Raw = (String, Vec<Vec<u8>>);
/// Nothing new, or per stream its entries.
type Read = Option<Vec<(String, Vec<Raw>)>>;
/// Entries with their delivery counts, and the ids that were given up on.
type Claimed = (Vec<(String, u64, Vec<Vec<u8>>)>, Vec<String>);

impl Stream {
    pub fn new(tenant: &Tenant, ingest: &Ingest, consumer: &str, link: RedisClient) -> Self {
        let script = |script: Script| redis::Script::new(script.source());
        Self {
            key: keys::ingest(tenant.as_str()),
            group: ingest.group.clone(),
            consumer: consumer.to_owned(),
            lease_ms: ingest.lease_s * 1000,
            link,
            claim: script(Script::Claim),
            renew: script(Script::Renew),
            release: script(Script::Release),
            leave: script(Script::LeaveGroup),
        }
    }

    /// Reads up to `count` new entries; none within `BLOCK` is an empty list. Makes stream and group where missing.
    pub async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let answer: RedisResult<Read> = redis::cmd("XREADGROUP")
            .arg(&["GROUP", &self.group, &self.consumer])
            .arg("COUNT")
            .arg(count)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
            .arg(&["STREAMS", &self.key, ">"])
            .query_async(connection)
            .await;
        let streams = match answer {
            Err(error) if error.code() == Some("NOGROUP") => {
                self.make_group().await?;
                return Ok(Vec::new());
            }
            answer => answer?.unwrap_or_default(),
        };
        Ok(streams
            .into_iter()
            .flat_map(|(_, entries)| entries)
            .map(|(id, fields)| entry(id, 1, fields))
            .collect())
    }

    /// At 0, so that what producers wrote before the first reflex ran is read as well.
    async fn make_group(&self) -> Result<(), StoreError> {
        let made: RedisResult<()> = redis::cmd("XGROUP")
            .arg(&["CREATE", &self.key, &self.group, "0", "MKSTREAM"])
            .query_async(&mut self.link.connection()?)
            .await;
        match made {
            // Another reflex was faster.
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            made => Ok(made?),
        }
    }

    /// Takes over up to `count` entries whose lease ran out or that were released.
    pub async fn claim(&self, count: usize) -> Result<Vec<Entry>, StoreError> {
        // Only the stream's own key: a lane's key could lie in another slot, and with cap 0 the script needs none.
        let (claimed, _): Claimed = self
            .claim
            .key(&self.key)
            .arg(&[&self.group, &self.consumer])
            .arg(self.lease_ms)
            .arg(0)
            .arg(count)
            .arg(contracts::ids::utc_now())
            .invoke_async(&mut self.link.connection()?)
            .await?;
        Ok(claimed
            .into_iter()
            .map(|(id, delivery, fields)| entry(id, delivery, fields))
            .collect())
    }

    /// Keeps the leases of entries; gives the ids of those that are ours no more.
    pub async fn renew(&self, held: &[(String, u64)]) -> Result<Vec<String>, StoreError> {
        let answers: Vec<String> = self.on_each(&self.renew, held).await?;
        let lost = held
            .iter()
            .zip(answers)
            .filter(|(_, answer)| answer != "valid");
        Ok(lost.map(|((id, _), _)| id.clone()).collect())
    }

    /// Gives entries back, due at once for any reflex.
    pub async fn release(&self, held: &[(String, u64)]) -> Result<(), StoreError> {
        self.on_each::<Value>(&self.release, held).await.map(|_| ())
    }

    async fn on_each<T: redis::FromRedisValue>(
        &self,
        script: &redis::Script,
        held: &[(String, u64)],
    ) -> Result<T, StoreError> {
        let mut call = script.key(&self.key);
        call.arg(&[&self.group, &self.consumer]).arg(held.len());
        for (id, delivery) in held {
            call.arg(1).arg(id).arg(*delivery);
        }
        Ok(call.invoke_async(&mut self.link.connection()?).await?)
    }

    /// Takes a finished entry off the stream.
    pub async fn remove(&self, id: &str) -> Result<(), StoreError> {
        redis::pipe()
            .atomic()
            .cmd("XACK")
            .arg(&[&self.key, &self.group, id])
            .cmd("XDEL")
            .arg(&[&self.key, id])
            .exec_async(&mut self.link.connection()?)
            .await?;
        Ok(())
    }

    /// Leaves the group, unless entries are still ours.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.leave
            .key(&self.key)
            .arg(&[&self.group, &self.consumer])
            .invoke_async::<Value>(&mut self.link.connection()?)
            .await?;
        Ok(())
    }

    /// A connection for `read`, and its id for `wake`.
    pub async fn connect(&self) -> Result<(MultiplexedConnection, Option<i64>), StoreError> {
        let mut connection = self.link.dedicated(BLOCK).await?;
        let id: Result<i64, RedisError> = redis::cmd("CLIENT")
            .arg("ID")
            .query_async(&mut connection)
            .await;
        // Where an ACL forbids it, a stop waits for the read's end.
        Ok((connection, id.ok()))
    }

    /// Ends a read that waits, without losing what it may just have been given.
    pub async fn wake(&self, client: Option<i64>) -> Result<(), StoreError> {
        if let Some(client) = client {
            redis::cmd("CLIENT")
                .arg("UNBLOCK")
                .arg(client)
                .query_async::<Value>(&mut self.link.connection()?)
                .await?;
        }
        Ok(())
    }
}

fn entry(id: String, delivery: u64, fields: Vec<Vec<u8>>) -> Entry {
    let mut pairs = Vec::with_capacity(fields.len() / 2);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        pairs.push((name, value));
    }
    Entry {
        id,
        delivery,
        fields: pairs,
    }
}
