//! When a worker stops by itself because every step breaks on it, as after a bad deploy. Pure: the time is passed in.
//!
//! The rules are those of the Python workers; `docs/decisions/008-circuit-breaker.md` gives the reasons.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// When the circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// After failures of so many different tasks in a row, without a success in between; 0: never.
    pub tasks: usize,
    /// The failures must belong to so many different tenants; to two at least once two have been seen.
    pub tenants: usize,
    /// The longest time that nothing is started. The first is an eighth of it; each failed half-open phase doubles it.
    pub cooldown: Duration,
}

/// So many probes in a row have to fail to open the circuit again: one bad input must not.
const FAILED_PROBES: u32 = 3;
/// The first cooldown is this part of the longest one.
const FIRST_COOLDOWN: u32 = 8;

/// A step that failed on this worker, by what it has in common with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedStep<'a> {
    pub task: &'a str,
    pub tenant: &'a str,
    /// The step's name in its plan.
    pub step: &'a str,
}

#[derive(Debug)]
struct Failure {
    task: String,
    tenant: String,
    step: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Start nothing until then; give back what fails now.
    Open {
        until: Instant,
    },
    /// One step at a time, the probe, decides whether to close or to open again. `probing`: it has been started.
    HalfOpen {
        probing: bool,
        failed: u32,
    },
}

/// How many steps may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permits {
    Unlimited,
    /// The probe. `first`: the cooldown has just ended.
    One {
        first: bool,
    },
    /// None until that moment at most; without one, until the state changes.
    None {
        until: Option<Instant>,
    },
}

/// What a failure led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The step ends as any failed step does.
    Counted,
    /// The circuit has opened, after failures of so many tasks: give the step back.
    Opened { tasks: usize },
    /// The probe failed. It ends as any failed step does: given back, it would be the next probe, too.
    ProbeFailed,
    /// The circuit was open already: give the step back.
    AlreadyOpen,
}

impl Effect {
    /// Whether the entry is given back as if its step had not been started.
    #[must_use]
    pub fn gives_back(self) -> bool {
        matches!(self, Self::Opened { .. } | Self::AlreadyOpen)
    }
}

#[derive(Debug)]
pub struct CircuitBreaker {
    rule: Rule,
    state: State,
    /// The next time that nothing is started.
    cooldown: Duration,
    /// Steps that failed since the last success, one for each task; oldest first.
    failed: VecDeque<Failure>,
    /// Tenants and step names seen so far; two are enough to know.
    tenants: HashSet<String>,
    steps: HashSet<String>,
}

impl CircuitBreaker {
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            state: State::Closed,
            cooldown: rule.cooldown / FIRST_COOLDOWN,
            failed: VecDeque::new(),
            tenants: HashSet::new(),
            steps: HashSet::new(),
        }
    }

    /// Whether the worker is stopped, or tries its first step after that.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    pub fn permits(&mut self, now: Instant) -> Permits {
        match self.state {
            State::Closed => Permits::Unlimited,
            State::Open { until } if until > now => Permits::None { until: Some(until) },
            State::Open { .. } => {
                self.state = State::HalfOpen {
                    probing: false,
                    failed: 0,
                };
                Permits::One { first: true }
            }
            State::HalfOpen { probing: false, .. } => Permits::One { first: false },
            State::HalfOpen { probing: true, .. } => Permits::None { until: None },
        }
    }

    /// Whether a step may be started now; the caller gives back what may not.
    pub fn try_start(&mut self) -> bool {
        match self.state {
            State::Closed => true,
            State::HalfOpen { probing, failed } => {
                self.state = State::HalfOpen {
                    probing: true,
                    failed,
                };
                !probing
            }
            State::Open { .. } => false,
        }
    }

    /// A step was run properly, also one that was started before the circuit opened. Answers whether this closed it.
    pub fn record_success(&mut self, tenant: &str, step: &str) -> bool {
        self.see(tenant, step);
        self.failed.clear();
        self.cooldown = self.rule.cooldown / FIRST_COOLDOWN;
        let was_open = self.is_open();
        self.state = State::Closed;
        was_open
    }

    /// The step says nothing about the worker: another one may be the probe.
    pub fn record_neutral(&mut self) {
        if let State::HalfOpen { failed, .. } = self.state {
            self.state = State::HalfOpen {
                probing: false,
                failed,
            };
        }
    }

    /// This worker could not run a step.
    pub fn record_failure(&mut self, step: FailedStep<'_>, now: Instant) -> Effect {
        self.see(step.tenant, step.step);
        match self.state {
            State::Open { .. } => Effect::AlreadyOpen,
            State::HalfOpen { failed, .. } => {
                if failed + 1 >= FAILED_PROBES {
                    self.open(now);
                } else {
                    self.state = State::HalfOpen {
                        probing: false,
                        failed: failed + 1,
                    };
                }
                Effect::ProbeFailed
            }
            State::Closed => {
                // The same task again is its own retry.
                self.failed.retain(|known| known.task != step.task);
                self.failed.push_back(Failure {
                    task: step.task.to_owned(),
                    tenant: step.tenant.to_owned(),
                    step: step.step.to_owned(),
                });
                if self.is_due() {
                    self.open(now);
                    let tasks = self.failed.len();
                    return Effect::Opened { tasks };
                }
                // Where it takes two tenants or steps, those of one may fail for ever: the newest are enough to remember.
                while self.failed.len() > self.rule.tasks.max(1) {
                    self.failed.pop_front();
                }
                Effect::Counted
            }
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open {
            until: now + self.cooldown,
        };
        self.cooldown = (self.cooldown * 2).min(self.rule.cooldown);
    }

    fn is_due(&self) -> bool {
        let distinct = |name: fn(&Failure) -> &str| {
            let names: HashSet<&str> = self.failed.iter().map(name).collect();
            names.len()
        };
        self.rule.tasks > 0
            && self.failed.len() >= self.rule.tasks
            && distinct(|failure| &failure.tenant) >= self.rule.tenants.max(self.tenants.len())
            && distinct(|failure| &failure.step) >= self.steps.len()
    }

    fn see(&mut self, tenant: &str, step: &str) {
        for (seen, name) in [(&mut self.tenants, tenant), (&mut self.steps, step)] {
            if seen.len() < 2 {
                seen.insert(name.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CircuitBreaker, Duration, Effect, FailedStep, Instant, Permits, Rule};

    const COOLDOWN: Duration = Duration::from_secs(600);
    const FIRST: Duration = Duration::from_secs(75);

    fn breaker(tasks: usize, tenants: usize) -> CircuitBreaker {
        CircuitBreaker::new(Rule {
            tasks,
            tenants,
            cooldown: COOLDOWN,
        })
    }

    fn failed<'a>(task: &'a str, tenant: &'a str) -> FailedStep<'a> {
        FailedStep {
            task,
            tenant,
            step: "run",
        }
    }

    /// What failures of each of these tasks of one tenant lead to.
    fn fail(breaker: &mut CircuitBreaker, tasks: &[&str], now: Instant) -> Vec<Effect> {
        let effects = tasks
            .iter()
            .map(|task| breaker.record_failure(failed(task, "a"), now));
        effects.collect()
    }

    fn opened(now: Instant) -> CircuitBreaker {
        let mut breaker = breaker(3, 1);
        let effects = fail(&mut breaker, &["t1", "t2", "t3"], now);
        let opened = Effect::Opened { tasks: 3 };
        assert_eq!(effects, [Effect::Counted, Effect::Counted, opened]);
        assert!(breaker.is_open());
        breaker
    }

    #[test]
    fn different_tasks_in_a_row_open_it() {
        let now = Instant::now();
        let mut breaker = breaker(3, 1);
        assert_eq!(fail(&mut breaker, &["t1"; 5], now), [Effect::Counted; 5]);
        assert_eq!(fail(&mut breaker, &["t2"], now), [Effect::Counted]);
        assert!(!breaker.record_success("a", "run"));
        assert_eq!(fail(&mut breaker, &["t3"], now), [Effect::Counted]);
        breaker.record_neutral();
        assert_eq!(
            fail(&mut breaker, &["t4", "t5"], now),
            [Effect::Counted, Effect::Opened { tasks: 3 }]
        );
    }

    #[test]
    fn zero_tasks_switch_it_off() {
        let mut breaker = breaker(0, 1);
        for number in 0..50 {
            let effect = breaker.record_failure(failed(&format!("t{number}"), "a"), Instant::now());
            assert_eq!(effect, Effect::Counted);
        }
    }

    #[test]
    fn one_tenant_alone_opens_it_only_where_there_is_one() {
        let now = Instant::now();
        let mut declared = breaker(3, 2);
        let mut seen = breaker(3, 1);
        seen.record_success("b", "run");
        for breaker in [&mut declared, &mut seen] {
            for number in 0..50 {
                let effect = breaker.record_failure(failed(&format!("t{number}"), "a"), now);
                assert_eq!(effect, Effect::Counted);
            }
            let effect = breaker.record_failure(failed("t50", "b"), now);
            assert_eq!(effect, Effect::Opened { tasks: 4 });
        }
    }

    #[test]
    fn while_it_is_open_nothing_starts_and_failures_are_given_back() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let until = Some(now + FIRST);
        assert_eq!(breaker.permits(now), Permits::None { until });
        assert!(!breaker.try_start());
        let effect = breaker.record_failure(failed("t9", "a"), now);
        assert_eq!(effect, Effect::AlreadyOpen);
        assert!(effect.gives_back() && Effect::Opened { tasks: 3 }.gives_back());
        // A step from before succeeds.
        assert!(breaker.record_success("a", "run"));
        assert!(!breaker.is_open() && breaker.try_start());
        assert_eq!(breaker.permits(now), Permits::Unlimited);
    }

    #[test]
    fn after_the_cooldown_one_step_is_tried() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + COOLDOWN;
        assert_eq!(breaker.permits(later), Permits::One { first: true });
        assert_eq!(breaker.permits(later), Permits::One { first: false });
        assert!(breaker.try_start() && !breaker.try_start());
        assert_eq!(breaker.permits(later), Permits::None { until: None });
        breaker.record_neutral();
        assert_eq!(breaker.permits(later), Permits::One { first: false });
        assert!(breaker.try_start());
        assert!(breaker.record_success("a", "run"));
        assert_eq!(breaker.permits(later), Permits::Unlimited);
    }

    #[test]
    fn probes_that_fail_are_not_given_back_and_three_open_it_again_for_longer() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut cooldown = FIRST;
        for _ in 0..5 {
            let until = Some(now + cooldown);
            assert_eq!(breaker.permits(now), Permits::None { until });
            now += cooldown;
            for _ in 0..3 {
                assert!(matches!(breaker.permits(now), Permits::One { .. }));
                assert!(breaker.try_start() && !breaker.try_start());
                let effect = breaker.record_failure(failed("t7", "a"), now);
                assert_eq!((effect, effect.gives_back()), (Effect::ProbeFailed, false));
            }
            assert!(!breaker.try_start());
            cooldown = (cooldown * 2).min(COOLDOWN);
        }
        now += COOLDOWN;
        breaker.permits(now);
        assert!(breaker.try_start() && breaker.record_success("a", "run"));
        fail(&mut breaker, &["t1", "t2", "t3"], now);
        let until = Some(now + FIRST);
        assert_eq!(breaker.permits(now), Permits::None { until });
    }

    #[test]
    fn one_step_of_a_recipe_alone_opens_it_only_where_there_is_one() {
        let now = Instant::now();
        let mut breaker = breaker(3, 1);
        breaker.record_success("a", "other");
        for number in 0..50 {
            let effect = breaker.record_failure(failed(&format!("t{number}"), "a"), now);
            assert_eq!(effect, Effect::Counted);
        }
        let other = FailedStep {
            step: "other",
            ..failed("t50", "a")
        };
        let effect = breaker.record_failure(other, now);
        assert_eq!(effect, Effect::Opened { tasks: 4 });
    }
}
