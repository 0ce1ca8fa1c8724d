//! Whatever is sent, the arithmetic of tokens holds.

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
