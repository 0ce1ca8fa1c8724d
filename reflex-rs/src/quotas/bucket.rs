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
mod tests {
    use std::time::Duration;

    use contracts::quotas::Rate;

    use super::{Bucket, Grant, Spent, TokenRequest, LIFETIME_US, PORTION_US};
    use crate::quotas::limit::{Limit, OwnerKind};

    fn bucket(per_s: f64, burst: u64) -> Bucket {
        let rate = Rate { per_s, burst };
        Bucket::new(Limit::Requests, OwnerKind::Tenant, String::new(), rate)
    }

    /// Redis' side: a bucket with a clock that the test sets.
    struct Server {
        rate: Rate,
        full_at: f64,
        granted: u64,
    }

    impl Server {
        fn new(rate: Rate) -> Self {
            Self {
                rate,
                full_at: 0.0,
                granted: 0,
            }
        }

        fn answer(&mut self, ask: TokenRequest, now: u64) -> Grant {
            let (now, per_token) = (now as f64, 1e6 / self.rate.per_s);
            let burst = self.rate.burst as f64;
            let full_at = self.full_at.max(now).min(now + burst * per_token);
            self.full_at = (full_at - ask.back as f64 * per_token).max(now);
            self.granted -= ask.back;
            let left = burst - (self.full_at - now) / per_token;
            let tokens = if ask.least as f64 <= left {
                ask.most.min(left as u64)
            } else {
                0
            };
            self.full_at += tokens as f64 * per_token;
            self.granted += tokens;
            let left = left - tokens as f64;
            Grant {
                tokens,
                left: left as u64,
                wait_us: ((ask.least as f64 - left).max(0.0) * per_token).ceil() as u64,
            }
        }
    }

    /// A request; asks the server if it must.
    fn request(bucket: &Bucket, server: &mut Server, cost: u64, now: u64) -> bool {
        for _ in 0..2 {
            match bucket.spend(cost, now) {
                Spent::Yes { refill } => {
                    if refill && bucket.enqueue() {
                        let ask = bucket.ask(now);
                        bucket.add(ask, server.answer(ask, now), now);
                    }
                    return true;
                }
                Spent::No { .. } => return false,
                Spent::Ask => {
                    bucket.wait_for(cost);
                    let ask = bucket.ask(now);
                    bucket.add(ask, server.answer(ask, now), now);
                }
            }
        }
        false
    }

    /// Numbers that look random and are the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % bound
        }
    }

    #[test]
    fn whatever_is_sent_the_quota_holds_in_every_ten_seconds_and_is_used_up() {
        for seed in 1..=40 {
            let mut numbers = Numbers(seed);
            let per_s = [0.5, 3.0, 50.0, 1000.0, 20_000.0][numbers.below(5) as usize];
            let burst = 1 + numbers.below(5 * per_s as u64 + 3);
            let rate = Rate { per_s, burst };
            let mut server = Server::new(rate);
            let processes: Vec<_> = (0..3).map(|_| bucket(per_s, burst)).collect();
            // Four times what the quota allows; in every second case with times of less and of silence, in which
            // processes could hoard tokens.
            let flood = seed % 2 == 0;
            let (mut gap, mut phase_ends) = (1e6 / (4.0 * per_s), 0);
            let (mut now, mut spent) = (1_000_000, Vec::new());
            while now < 31_000_000 {
                if now >= phase_ends && !flood {
                    phase_ends = now + 500_000 + numbers.below(5_000_000);
                    let pace = [0.25, 1.1, 0.0][numbers.below(3) as usize];
                    if pace == 0.0 {
                        now = phase_ends;
                        continue;
                    }
                    gap = 1e6 / per_s * pace;
                }
                now += numbers.below((2.0 * gap) as u64 + 1) + 1;
                let process = &processes[numbers.below(3) as usize];
                if request(process, &mut server, 1, now) {
                    spent.push(now);
                }
            }
            let allowed = per_s * 10.0 + burst as f64;
            for (first, from) in spent.iter().enumerate() {
                let within = spent[first..].partition_point(|at| *at < from + 10_000_000);
                assert!(
                    within as f64 <= (allowed * 1.05).max(allowed + 1.0),
                    "{within} of {allowed} with {rate:?}, seed {seed}"
                );
            }
            let all = per_s * 30.0 + burst as f64;
            // With a small burst, tokens are lost that come while nobody asks.
            assert!(
                !flood
                    || (burst as f64) < per_s / 4.0 + 3.0
                    || spent.len() as f64 >= (all * 0.93).floor() - 3.0,
                "only {} of {all} with {rate:?}, seed {seed}",
                spent.len()
            );
        }
    }

    #[test]
    fn below_the_quota_nothing_is_refused() {
        for seed in 1..=20 {
            let mut numbers = Numbers(seed);
            let per_s = [10.0, 100.0, 5000.0][numbers.below(3) as usize];
            let mut server = Server::new(Rate {
                per_s,
                burst: per_s as u64,
            });
            let processes: Vec<_> = (0..3).map(|_| bucket(per_s, per_s as u64)).collect();
            let gap = (1e6 / per_s * 1.1) as u64;
            let mut now = 0;
            while now < 20_000_000 {
                now += gap;
                let process = &processes[numbers.below(3) as usize];
                assert!(request(process, &mut server, 1, now), "at {now}, {per_s}/s");
            }
        }
    }

    #[test]
    fn most_requests_do_not_ask() {
        let (bucket, mut asks) = (bucket(1000.0, 1000), 0);
        let mut server = Server::new(bucket.rate);
        for now in (0..5_000_000).step_by(1200) {
            let before = bucket.asked_at.load(super::Relaxed);
            assert!(request(&bucket, &mut server, 1, now));
            asks += usize::from(bucket.asked_at.load(super::Relaxed) != before);
        }
        assert!(asks < 4166 / 20, "{asks}");
    }

    #[test]
    fn a_portion_that_is_not_spent_is_given_back() {
        let bucket = bucket(1000.0, 1000);
        let mut server = Server::new(bucket.rate);
        for now in 0..20 {
            assert!(request(&bucket, &mut server, 1, now * 1000));
        }
        let held = bucket.tokens.load(super::Relaxed);
        assert!(held > 0 && server.granted == 20 + held);
        let later = 20_000 + LIFETIME_US;
        assert!(bucket.has_expired(later));
        let ask = bucket.ask(later);
        assert_eq!((ask.back, ask.least), (held, ask.most.min(1)));
        bucket.add(ask, server.answer(ask, later), later);
        assert!(!bucket.has_expired(later));
    }

    #[test]
    fn an_expensive_request_waits_for_all_it_needs_and_does_not_stop_cheap_ones() {
        let bucket = bucket(100.0, 1000);
        let mut server = Server::new(bucket.rate);
        assert!(request(&bucket, &mut server, 600, 0));
        assert!(!request(&bucket, &mut server, 600, 1));
        match bucket.spend(600, 2) {
            Spent::No { wait } => {
                assert!((1990..2000).contains(&wait.as_millis()), "{wait:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(request(&bucket, &mut server, 300, 3));
        assert!(!request(&bucket, &mut server, 600, 4_900_000));
        assert!(request(&bucket, &mut server, 600, 5_010_000));
    }

    #[test]
    fn it_tells_what_is_left_and_when_it_is_full() {
        let bucket = bucket(100.0, 50);
        assert_eq!(
            (bucket.remaining(0), bucket.full_in(0)),
            (50, Duration::ZERO)
        );
        let mut server = Server::new(bucket.rate);
        for _ in 0..50 {
            assert!(request(&bucket, &mut server, 1, 0));
        }
        assert!(!request(&bucket, &mut server, 1, 0));
        assert_eq!(bucket.remaining(0), 0);
        assert_eq!(bucket.full_in(0), Duration::from_millis(500));
        assert_eq!(bucket.remaining(100_000), 10);
        assert_eq!(bucket.remaining(10_000_000), 50);
    }

    #[test]
    fn a_slow_quota_takes_no_portions() {
        let bucket = bucket(5.0, 5);
        bucket.wait_for(1);
        let ask = bucket.ask(0);
        assert_eq!((ask.least, ask.most), (1, 1));
        assert_eq!(bucket.tokens_in(PORTION_US), 0);
    }
}
