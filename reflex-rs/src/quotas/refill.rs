//! Asks Redis for tokens: one call of the script `grant_quota` for all buckets that need some at the moment.

use std::sync::Arc;

use bus::{RedisClient, Script, ScriptCall, StoreError};
use tokio::sync::mpsc;

use super::bucket::{Bucket, Grant};
use super::Clock;
use crate::metrics::Metrics;

/// Buckets of one call. Redis does nothing else while it executes a call.
const MAX_BUCKETS: usize = 256;

/// The queue of the buckets that need tokens. Each is in it at most once.
#[derive(Clone)]
pub(super) struct Refill(mpsc::UnboundedSender<Arc<Bucket>>);

/// The other end of the queue.
pub(super) struct Refiller {
    pub redis: RedisClient,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub queue: mpsc::UnboundedReceiver<Arc<Bucket>>,
}

impl Refill {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Arc<Bucket>>) {
        let (sender, queue) = mpsc::unbounded_channel();
        (Self(sender), queue)
    }

    /// Puts a bucket into the queue unless it is there. Does not wait.
    pub fn request(&self, bucket: &Arc<Bucket>) {
        if bucket.enqueue() {
            // Fails only when the process stops.
            let _ = self.0.send(Arc::clone(bucket));
        }
    }
}

impl Refiller {
    /// Runs as long as the process.
    pub async fn run(mut self) {
        let mut buckets = Vec::with_capacity(MAX_BUCKETS);
        while self.queue.recv_many(&mut buckets, MAX_BUCKETS).await > 0 {
            self.refill(&buckets).await;
            buckets.clear();
        }
    }

    async fn refill(&self, buckets: &[Arc<Bucket>]) {
        let now = self.clock.now();
        let asks: Vec<_> = buckets.iter().map(|bucket| bucket.ask(now)).collect();
        let mut call = ScriptCall::new(Script::GrantQuota);
        for (bucket, ask) in buckets.iter().zip(&asks) {
            call.key(&bucket.key)
                .arg(bucket.rate.per_s)
                .arg(bucket.rate.burst)
                .arg(ask.back)
                .arg(ask.least)
                .arg(ask.most);
        }
        let answer = self.redis.call::<Vec<(u64, u64, u64)>>(&call).await;
        let now = self.clock.now();
        match answer {
            Ok(grants) if grants.len() == buckets.len() => {
                for ((bucket, ask), (tokens, left, wait_us)) in buckets.iter().zip(asks).zip(grants)
                {
                    self.metrics.quota_granted(bucket.limit, tokens);
                    let grant = Grant {
                        tokens,
                        left,
                        wait_us,
                    };
                    bucket.add(ask, grant, now);
                }
            }
            Ok(_) => fail(
                buckets,
                &StoreError::unexpected_answer("grant_quota answered for other buckets"),
            ),
            // Whether or not Redis granted something, nothing was stored.
            Err(StoreError::Unknown(error)) => {
                fail(buckets, &StoreError::unavailable(error.to_string()));
            }
            Err(error) => fail(buckets, &error),
        }
    }
}

/// Tells the requests that wait why there are no tokens.
fn fail(buckets: &[Arc<Bucket>], error: &StoreError) {
    for bucket in buckets {
        bucket.fail(error);
    }
}
