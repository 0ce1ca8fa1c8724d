//! What a caller may still do, as Redis knows it.

use std::sync::Arc;

use bus::{RedisClient, Script, ScriptCall, StoreError};

use super::bucket::Bucket;
use super::limit::{Limit, OwnerKind};

/// One limit of a caller.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitReport {
    pub limit: Limit,
    pub owner: OwnerKind,
    /// The average rate; `None` for open tasks.
    pub per_s: Option<f64>,
    /// How much may come at once, or how many tasks may be open.
    pub most: u64,
    pub remaining: u64,
}

/// Asks Redis what is left in these buckets. What this process holds of them is added.
pub(super) async fn buckets(
    redis: &RedisClient,
    buckets: &[Arc<Bucket>],
    now: u64,
) -> Result<Vec<LimitReport>, StoreError> {
    if buckets.is_empty() {
        return Ok(Vec::new());
    }
    let mut call = ScriptCall::new(Script::GrantQuota);
    for bucket in buckets {
        call.key(&bucket.key)
            .arg(bucket.rate.per_s)
            .arg(bucket.rate.burst)
            .arg(&[0, 0, 0]);
    }
    let answers: Vec<(u64, u64, u64)> = redis.call(&call).await?;
    let report = |(bucket, (_, left, _)): (&Arc<Bucket>, (u64, u64, u64))| LimitReport {
        limit: bucket.limit,
        owner: bucket.owner,
        per_s: Some(bucket.rate.per_s),
        most: bucket.rate.burst,
        remaining: (left + bucket.held(now)).min(bucket.rate.burst),
    };
    Ok(buckets.iter().zip(answers).map(report).collect())
}
