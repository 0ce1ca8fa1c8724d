//! The tokens that one request takes.

use std::sync::Arc;
use std::time::Duration;

use bus::StoreError;

use super::bucket::Bucket;

/// Why tokens cannot be taken.
pub(super) enum TakeError {
    Exceeded(Duration),
    Store(StoreError),
}

/// What a request has spent, at most requests and bytes of a tenant and a key.
#[derive(Default)]
pub(super) struct Spending<'a> {
    spent: [Option<(&'a Arc<Bucket>, u64)>; 4],
    count: usize,
}

impl<'a> Spending<'a> {
    pub(super) fn push(&mut self, bucket: &'a Arc<Bucket>, cost: u64) {
        if let Some(place) = self.spent.get_mut(self.count) {
            *place = Some((bucket, cost));
            self.count += 1;
        }
    }

    /// Gives everything back: a refused request costs nothing.
    pub(super) fn refund(&self) {
        for (bucket, cost) in self.spent.iter().flatten() {
            bucket.refund(*cost);
        }
    }
}
