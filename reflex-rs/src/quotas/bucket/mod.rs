//! One bucket: what this process may still spend of it without asking Redis. Pure: the clock is passed in.
//!
//! Redis grants a portion, which is about what was used in the last `PORTION`. A portion that is half spent is refilled in the
//! background. What is not spent within `LIFETIME` is given back. So all processes together exceed a quota by no more than
//! their portions, however many they are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::StoreError;
use contracts::quotas::Rate;
use tokio::sync::Notify;

use super::limit::{Limit, OwnerKind};

/// Time for which a portion should suffice.
const PORTION_US: u64 = 100_000;
/// How long a portion may be spent.
const LIFETIME_US: u64 = 200_000;
/// How long Redis is not asked again after it had too few tokens, unless they come later.
const MAX_PAUSE_US: u64 = 20_000;

/// Whether tokens can be spent now. All times are in us on the clock of the caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spent {
    /// They are spent. `refill`: ask Redis for more in the background.
    Yes { refill: bool },
    /// Redis had too few a moment ago.
    No { wait: Duration },
    /// Redis must be asked.
    Ask,
}

/// What to ask Redis for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenRequest {
    /// Tokens of an old portion, given back.
    pub back: u64,
    pub least: u64,
    pub most: u64,
    /// The cheapest request that waits; 1 if none does.
    cost: u64,
}

/// What Redis answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub tokens: u64,
    /// What stays in Redis.
    pub left: u64,
    /// Until Redis has the least that was asked for.
    pub wait_us: u64,
}

/// The local part of a bucket in Redis.
#[derive(Debug)]
pub(super) struct Bucket {
    pub limit: Limit,
    pub owner: OwnerKind,
    /// Its key in Redis.
    pub key: String,
    pub rate: Rate,
    tokens: AtomicU64,
    valid_until: AtomicU64,
    /// A refill is asked for when fewer tokens are left.
    low: AtomicU64,
    /// The tokens after the last answer, which shows how many were used since.
    after_answer: AtomicU64,
    asked_at: AtomicU64,
    /// Whether it is in the queue for the next call.
    asked: AtomicBool,
    /// Tokens that waiting requests need together, and the fewest that one of them needs.
    waiting: AtomicU64,
    cheapest: AtomicU64,
    /// Until when Redis is known to have fewer tokens than `refused_cost`.
    refused_until: AtomicU64,
    refused_cost: AtomicU64,
    /// What Redis had left, and when.
    left: AtomicU64,
    left_at: AtomicU64,
    /// Why the last call failed; `None` if it did not.
    failure: Mutex<Option<StoreError>>,
    /// Wakes the requests that wait for an answer of Redis.
    pub answered: Notify,
}

impl Bucket {
    pub fn new(limit: Limit, owner: OwnerKind, key: String, rate: Rate) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            limit,
            owner,
            key,
            rate,
            tokens: zero(),
            valid_until: zero(),
            low: zero(),
            after_answer: zero(),
            asked_at: zero(),
            asked: AtomicBool::new(false),
            waiting: zero(),
            cheapest: AtomicU64::new(u64::MAX),
            refused_until: zero(),
            refused_cost: zero(),
            left: AtomicU64::new(rate.burst),
            left_at: zero(),
            failure: Mutex::default(),
            answered: Notify::new(),
        }
    }

    /// Spends tokens if they are here.
    pub fn spend(&self, cost: u64, now: u64) -> Spent {
        if now < self.valid_until.load(Relaxed) {
            let spent = self
                .tokens
                .fetch_update(Relaxed, Relaxed, |tokens| tokens.checked_sub(cost));
            if let Ok(before) = spent {
                let refill = before - cost < self.low.load(Relaxed)
                    && now >= self.refused_until.load(Relaxed);
                return Spent::Yes { refill };
            }
        }
        let refused_until = self.refused_until.load(Relaxed);
        let refused_cost = self.refused_cost.load(Relaxed);
        if now < refused_until && cost >= refused_cost {
            let wait = refused_until - now + self.time_of(cost - refused_cost);
            return Spent::No {
                wait: Duration::from_micros(wait),
            };
        }
        Spent::Ask
    }

    /// Returns tokens of a request that was refused for another reason.
    pub fn refund(&self, cost: u64) {
        self.tokens.fetch_add(cost, Relaxed);
    }

    /// Notes that a request waits for tokens.
    pub fn wait_for(&self, cost: u64) {
        self.waiting.fetch_add(cost, Relaxed);
        self.cheapest.fetch_min(cost, Relaxed);
    }

    /// Whether the caller has to put the bucket into the queue for the next call: it is not there yet.
    pub fn enqueue(&self) -> bool {
        !self.asked.swap(true, Relaxed)
    }

    /// Whether it holds tokens that may no longer be spent.
    pub fn has_expired(&self, now: u64) -> bool {
        now >= self.valid_until.load(Relaxed) && self.tokens.load(Relaxed) > 0
    }

    /// Takes the bucket from the queue and says what to ask Redis for.
    pub fn ask(&self, now: u64) -> TokenRequest {
        self.asked.store(false, Relaxed);
        let waiting = self.waiting.swap(0, Relaxed);
        let cheapest = self.cheapest.swap(u64::MAX, Relaxed);
        let expired = now >= self.valid_until.load(Relaxed);
        let back = if expired {
            self.tokens.swap(0, Relaxed)
        } else {
            0
        };
        let tokens = self.tokens.load(Relaxed);
        let used = self
            .after_answer
            .swap(tokens, Relaxed)
            .saturating_sub(tokens)
            .saturating_sub(back);
        let since = now.saturating_sub(self.asked_at.swap(now, Relaxed));
        let portion = self.portion(used + waiting, since);
        let cost = if waiting == 0 { 1 } else { cheapest };
        let most = (waiting + portion).saturating_sub(tokens);
        let least = if waiting == 0 {
            most.min(1)
        } else {
            cheapest.saturating_sub(tokens).max(1)
        };
        TokenRequest {
            back,
            least,
            most: most.max(least),
            cost,
        }
    }

    /// Adds what Redis has granted and wakes the requests that wait.
    pub fn add(&self, ask: TokenRequest, grant: Grant, now: u64) {
        let tokens = self.tokens.fetch_add(grant.tokens, Relaxed) + grant.tokens;
        self.after_answer.store(tokens, Relaxed);
        self.low.store(tokens / 2, Relaxed);
        self.valid_until.store(now + LIFETIME_US, Relaxed);
        self.left.store(grant.left, Relaxed);
        self.left_at.store(now, Relaxed);
        if grant.tokens < ask.most {
            let cost = if grant.tokens == 0 { ask.cost } else { 1 };
            let pause = MAX_PAUSE_US.min(self.time_of(self.rate.burst) / 4);
            self.refused_cost.store(cost, Relaxed);
            self.refused_until
                .store(now + grant.wait_us.max(pause).max(1), Relaxed);
        } else if ask.most > 0 {
            self.refused_until.store(0, Relaxed);
        }
        *self.last_failure() = None;
        self.answered.notify_waiters();
    }

    /// Tells the requests that wait why Redis grants nothing.
    pub fn fail(&self, error: &StoreError) {
        *self.last_failure() = Some(error.clone());
        self.answered.notify_waiters();
    }

    /// Why the last call failed.
    pub fn failure(&self) -> Option<StoreError> {
        self.last_failure().clone()
    }

    fn last_failure(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tokens the owner may spend now, over all processes, as far as this one knows.
    pub fn remaining(&self, now: u64) -> u64 {
        let since = now.saturating_sub(self.left_at.load(Relaxed));
        let left = self.left.load(Relaxed) + self.tokens_in(since);
        (left + self.held(now)).min(self.rate.burst)
    }

    /// How many tokens this process may spend without Redis.
    pub fn held(&self, now: u64) -> u64 {
        if now < self.valid_until.load(Relaxed) {
            self.tokens.load(Relaxed)
        } else {
            0
        }
    }

    /// How long it takes until the bucket is full again.
    pub fn full_in(&self, now: u64) -> Duration {
        let missing = self.rate.burst - self.remaining(now);
        Duration::from_micros(self.time_of(missing))
    }

    /// Tokens for the next `PORTION`: what was used lately, and up to four times as much while it grows, if the quota has so many.
    fn portion(&self, used: u64, since: u64) -> u64 {
        let used =
            u128::from(used) * u128::from(PORTION_US) / u128::from(since.max(PORTION_US / 4));
        let used = u64::try_from(used).unwrap_or(u64::MAX);
        used.min(self.tokens_in(PORTION_US))
    }

    #[allow(clippy::cast_precision_loss)] // the file allows only numbers that a double holds exactly
    fn time_of(&self, tokens: u64) -> u64 {
        whole((tokens as f64 * 1e6 / self.rate.per_s).ceil())
    }

    #[allow(clippy::cast_precision_loss)] // it need not be exact
    fn tokens_in(&self, us: u64) -> u64 {
        whole(us as f64 * self.rate.per_s / 1e6)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` cuts to the bounds of the type
fn whole(number: f64) -> u64 {
    (number as u64).min(1 << 53)
}

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the numbers of the tests are small"
)]
mod tests;
