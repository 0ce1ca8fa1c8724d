//! The fuse: when a worker stops by itself because it breaks on whatever it gets, as after a bad deploy.
//!
//! The rules are those of Python's `octollm.consumer.circuit_breaker`; docs/decisions/008-the-fuse.md says why. The time is passed in.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// When it blows, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// On so many different tasks in a row, without anything that went well in between; 0: never.
    pub tasks: usize,
    /// Of so many different tenants; two at least from the moment that two have been met.
    pub tenants: usize,
    pub cooldown: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Work as ever.
    Closed,
    /// Begin nothing until then; what breaks now is given back.
    Fused { until: Instant },
    /// One step, after which it is closed or fused again. `begun`: it is on its way.
    Trying { begun: bool },
}

/// How much may be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    All,
    /// `first`: the cool-down has just ended.
    One {
        first: bool,
    },
    /// Nothing, until that moment at most; without one until something changes.
    Nothing {
        until: Option<Instant>,
    },
}

/// What a broken step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broke {
    /// It ends as ever.
    Counted,
    /// It was the last straw, after so many tasks: give it back.
    Blown { tasks: usize },
    /// It was the one that was tried, and ends as ever: given back, it would be the next one tried, too.
    Tried,
    /// The fuse was out already: give it back.
    Out,
}

impl Broke {
    /// Whether the entry goes back as if it had not been begun.
    #[must_use]
    pub fn gives_back(self) -> bool {
        matches!(self, Self::Blown { .. } | Self::Out)
    }
}

#[derive(Debug)]
pub struct Fuse {
    rule: Rule,
    state: State,
    /// Tasks that broke since anything went well, and whose they are; oldest first.
    broken: VecDeque<(String, String)>,
    /// Tenants; two are enough to know.
    met: HashSet<String>,
}

impl Fuse {
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            state: State::Closed,
            broken: VecDeque::new(),
            met: HashSet::new(),
        }
    }

    /// Whether the worker is stopped, or tries its first step after that.
    #[must_use]
    pub fn out(&self) -> bool {
        self.state != State::Closed
    }

    pub fn room(&mut self, now: Instant) -> Room {
        match self.state {
            State::Closed => Room::All,
            State::Fused { until } if until > now => Room::Nothing { until: Some(until) },
            State::Fused { .. } => {
                self.state = State::Trying { begun: false };
                Room::One { first: true }
            }
            State::Trying { begun: false } => Room::One { first: false },
            State::Trying { begun: true } => Room::Nothing { until: None },
        }
    }

    /// Whether a step may be begun now; the caller gives back what may not.
    pub fn begin(&mut self) -> bool {
        match self.state {
            State::Closed => true,
            State::Trying { begun: false } => {
                self.state = State::Trying { begun: true };
                true
            }
            State::Trying { begun: true } | State::Fused { .. } => false,
        }
    }

    /// A step was worked on as it should be, also one that was begun before the fuse blew. Whether that put it in again.
    pub fn well(&mut self, tenant: &str) -> bool {
        self.meet(tenant);
        self.broken.clear();
        let was_out = self.out();
        self.state = State::Closed;
        was_out
    }

    /// The step said nothing about the worker: another may be tried.
    pub fn undecided(&mut self) {
        if let State::Trying { .. } = self.state {
            self.state = State::Trying { begun: false };
        }
    }

    pub fn broke(&mut self, task: &str, tenant: &str, now: Instant) -> Broke {
        self.meet(tenant);
        let until = now + self.rule.cooldown;
        match self.state {
            State::Fused { .. } => Broke::Out,
            State::Trying { .. } => {
                self.state = State::Fused { until };
                Broke::Tried
            }
            State::Closed => {
                // The same task again is its own retry.
                self.broken.retain(|(known, _)| known != task);
                self.broken.push_back((task.to_owned(), tenant.to_owned()));
                if self.blows() {
                    self.state = State::Fused { until };
                    let tasks = self.broken.len();
                    return Broke::Blown { tasks };
                }
                // One tenant's tasks may break for ever where it takes two: its newest are enough to remember.
                while self.broken.len() > self.rule.tasks.max(1) {
                    self.broken.pop_front();
                }
                Broke::Counted
            }
        }
    }

    fn blows(&self) -> bool {
        let tenants: HashSet<&str> = self
            .broken
            .iter()
            .map(|(_, whose)| whose.as_str())
            .collect();
        self.rule.tasks > 0
            && self.broken.len() >= self.rule.tasks
            && tenants.len() >= self.rule.tenants.max(self.met.len())
    }

    fn meet(&mut self, tenant: &str) {
        if self.met.len() < 2 {
            self.met.insert(tenant.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Broke, Duration, Fuse, Instant, Room, Rule};

    const COOLDOWN: Duration = Duration::from_secs(600);

    fn fuse(tasks: usize, tenants: usize) -> Fuse {
        Fuse::new(Rule {
            tasks,
            tenants,
            cooldown: COOLDOWN,
        })
    }

    /// What each of these tasks of one tenant leads to.
    fn breaks(fuse: &mut Fuse, tasks: &[&str], now: Instant) -> Vec<Broke> {
        let each = tasks.iter().map(|task| fuse.broke(task, "a", now));
        each.collect()
    }

    fn blown(now: Instant) -> Fuse {
        let mut one = fuse(3, 1);
        let led_to = breaks(&mut one, &["t1", "t2", "t3"], now);
        assert_eq!(
            led_to,
            [Broke::Counted, Broke::Counted, Broke::Blown { tasks: 3 }]
        );
        assert!(one.out());
        one
    }

    #[test]
    fn it_takes_different_tasks_in_a_row() {
        let now = Instant::now();
        let mut one = fuse(3, 1);
        assert_eq!(breaks(&mut one, &["t1"; 5], now), [Broke::Counted; 5]);
        assert_eq!(breaks(&mut one, &["t2"], now), [Broke::Counted]);
        assert!(!one.well("a"));
        assert_eq!(breaks(&mut one, &["t3"], now), [Broke::Counted]);
        one.undecided();
        assert_eq!(
            breaks(&mut one, &["t4", "t5"], now),
            [Broke::Counted, Broke::Blown { tasks: 3 }]
        );
    }

    #[test]
    fn nought_switches_it_off() {
        let mut one = fuse(0, 1);
        for number in 0..50 {
            assert_eq!(
                one.broke(&format!("t{number}"), "a", Instant::now()),
                Broke::Counted
            );
        }
    }

    #[test]
    fn one_tenant_alone_blows_it_only_where_there_is_one() {
        let now = Instant::now();
        let mut declared = fuse(3, 2);
        let mut met = fuse(3, 1);
        met.well("b");
        for one in [&mut declared, &mut met] {
            for number in 0..50 {
                assert_eq!(one.broke(&format!("t{number}"), "a", now), Broke::Counted);
            }
            assert_eq!(one.broke("t50", "b", now), Broke::Blown { tasks: 4 });
        }
    }

    #[test]
    fn while_it_is_out_nothing_begins_and_what_breaks_is_given_back() {
        let now = Instant::now();
        let mut one = blown(now);
        let until = Some(now + COOLDOWN);
        assert_eq!(one.room(now), Room::Nothing { until });
        assert!(!one.begin());
        assert_eq!(one.broke("t9", "a", now), Broke::Out);
        assert!(Broke::Out.gives_back() && Broke::Blown { tasks: 3 }.gives_back());
        // What had been begun before goes well.
        assert!(one.well("a"));
        assert!(!one.out() && one.begin());
        assert_eq!(one.room(now), Room::All);
    }

    #[test]
    fn after_the_cooldown_one_step_is_tried() {
        let now = Instant::now();
        let mut one = blown(now);
        let later = now + COOLDOWN;
        assert_eq!(one.room(later), Room::One { first: true });
        assert_eq!(one.room(later), Room::One { first: false });
        assert!(one.begin() && !one.begin());
        assert_eq!(one.room(later), Room::Nothing { until: None });
        one.undecided(); // it said nothing: another one
        assert_eq!(one.room(later), Room::One { first: false });
        assert!(one.begin());
        assert!(one.well("a"));
        assert_eq!(one.room(later), Room::All);
    }

    #[test]
    fn a_try_that_breaks_fuses_it_again_and_is_not_given_back() {
        let now = Instant::now();
        let mut one = blown(now);
        let later = now + COOLDOWN;
        one.room(later);
        assert!(one.begin());
        let led_to = one.broke("t7", "a", later);
        assert_eq!((led_to, led_to.gives_back()), (Broke::Tried, false));
        assert!(!one.begin());
        let until = Some(later + COOLDOWN);
        assert_eq!(one.room(later), Room::Nothing { until });
    }
}
