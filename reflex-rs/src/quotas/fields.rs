//! The fields `RateLimit-Policy` and `RateLimit`: a list of named policies, and how much of each is left.
//!
//! A policy `"requests";q=200;w=2` allows 200 in any 2 seconds: the burst, and the time in which it refills. `r` is what is left, `t`
//! the seconds until all of it is there again; in a refusal, until the request can succeed.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::bucket::Bucket;
use super::limit::{policy_name, whole_seconds, Limit, OwnerKind};
use super::open_tasks::TaskLimit;

/// Unit of a quota that does not count requests.
const BYTES: &str = ";qu=\"content-bytes\"";

/// Describes the policies of some buckets.
pub(super) fn policy<'a>(buckets: impl Iterator<Item = &'a Arc<Bucket>>) -> String {
    let mut text = String::new();
    for bucket in buckets {
        let rate = bucket.rate;
        #[allow(clippy::cast_precision_loss)] // bounded by the file
        let window = Duration::from_secs_f64(rate.burst as f64 / rate.per_s);
        item(&mut text, bucket.owner, bucket.limit);
        // Writing to a string never fails.
        let _ = write!(text, ";q={};w={}", rate.burst, whole_seconds(window));
        if bucket.limit == Limit::Bytes {
            text.push_str(BYTES);
        }
    }
    text
}

/// Describes the policy of a limit of open tasks.
pub(super) fn tasks_policy(limit: &TaskLimit) -> String {
    let mut text = String::new();
    item(&mut text, limit.owner, Limit::Tasks);
    let _ = write!(text, ";q={};qu=\"concurrent-requests\"", limit.most);
    text
}

/// Describes what is left in some buckets.
pub(super) fn state<'a>(buckets: impl Iterator<Item = &'a Arc<Bucket>>, now: u64) -> String {
    let mut text = String::new();
    for bucket in buckets {
        item(&mut text, bucket.owner, bucket.limit);
        let (left, full_in) = (bucket.remaining(now), bucket.full_in(now));
        let _ = write!(text, ";r={left};t={}", full_in.as_secs_f64().ceil());
    }
    text
}

/// Describes a limit that leaves too little for a request.
pub(super) fn exceeded(owner: OwnerKind, limit: Limit, left: u64, wait: Duration) -> String {
    let mut text = String::new();
    item(&mut text, owner, limit);
    let _ = write!(text, ";r={left};t={}", whole_seconds(wait));
    text
}

fn item(text: &mut String, owner: OwnerKind, limit: Limit) {
    let separator = if text.is_empty() { "" } else { ", " };
    let _ = write!(text, "{separator}\"{}\"", policy_name(owner, limit));
}

/// Puts the parts of a list together.
pub(super) fn join(mut parts: impl Iterator<Item = String>) -> String {
    let mut text = parts.next().unwrap_or_default();
    for part in parts {
        text.push_str(", ");
        text.push_str(&part);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use contracts::quotas::Rate;

    use super::{exceeded, policy, state};
    use crate::quotas::bucket::Bucket;
    use crate::quotas::limit::{whole_seconds, Limit, OwnerKind};

    #[test]
    fn the_fields_are_lists_of_named_policies() {
        let bucket = |limit, owner, per_s, burst| {
            let rate = Rate { per_s, burst };
            Arc::new(Bucket::new(limit, owner, String::new(), rate))
        };
        let buckets = [
            bucket(Limit::Requests, OwnerKind::Tenant, 100.0, 250),
            bucket(Limit::Bytes, OwnerKind::Key, 1000.0, 1000),
        ];
        assert_eq!(
            policy(buckets.iter()),
            "\"requests\";q=250;w=3, \"key-bytes\";q=1000;w=1;qu=\"content-bytes\""
        );
        assert_eq!(
            state(buckets.iter(), 0),
            "\"requests\";r=250;t=0, \"key-bytes\";r=1000;t=0"
        );
        let wait = Duration::from_millis(1500);
        assert_eq!(
            exceeded(OwnerKind::Key, Limit::Reads, 0, wait),
            "\"key-reads\";r=0;t=2"
        );
    }

    #[test]
    fn a_wait_is_at_least_a_second() {
        for (ms, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(ms)), expected);
        }
    }
}
