//! What a connection is doing, and when it has done that for too long. Pure: the clock is passed in.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A client that takes less than this within the time limit for writing counts as one that does not read.
const MIN_PROGRESS_BYTES: usize = 16 * 1024;

/// How long a client of HTTP/2 may take nothing of the responses that have begun; longer than the time between two comments of
/// an event stream. It says how much it takes, so the socket does not show that it takes nothing.
const MAX_STANDSTILL: Duration = Duration::from_secs(30);

/// How long each phase of a connection may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// How long the client may take almost nothing of what waits for it.
    pub write: Duration,
}

impl Limits {
    /// While every connection slot is taken, connections that do nothing are closed sooner.
    const OVERLOADED: Self = Self {
        head: Duration::MAX,
        idle: Duration::from_secs(1),
        write: Duration::from_secs(5),
    };

    pub fn overloaded(self) -> Self {
        Self {
            head: self.head.min(Self::OVERLOADED.head),
            idle: self.idle.min(Self::OVERLOADED.idle),
            write: self.write.min(Self::OVERLOADED.write),
        }
    }
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Overdue {
    #[error("the head of a request did not arrive in time")]
    Head,
    #[error("it was idle")]
    Idle,
    #[error("the client does not read its responses")]
    Write,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Between two requests, and before the first.
    Idle(Instant),
    /// A request's head is arriving.
    Head(Instant),
    /// A request is being handled or answered.
    Busy,
}

/// A write that could not be completed at once.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    written: usize,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Requests that are being handled or answered.
    running: usize,
    /// Whether it speaks HTTP/2, where bytes between two requests need not be a request's.
    multiplexed: bool,
    stall: Option<Stall>,
    /// Responses that have begun and have not ended. Only counted for HTTP/2, as is the next one.
    answering: usize,
    /// When the client last took a part of one.
    progressed: Instant,
}

/// Shared by the parts of one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

impl Activity {
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            phase: Phase::Idle(now),
            running: 0,
            multiplexed: false,
            stall: None,
            answering: 0,
            progressed: now,
        }))
    }

    /// Bytes have arrived.
    pub fn received(&self, now: Instant) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Idle(_)) && !state.multiplexed {
            state.phase = Phase::Head(now);
        }
    }

    /// The TLS handshake is complete: what arrived until now was no request.
    pub fn handshake_ended(&self, now: Instant) {
        self.lock().phase = Phase::Idle(now);
    }

    /// The head of a request is complete.
    pub fn request_started(&self, multiplexed: bool) {
        let mut state = self.lock();
        state.running += 1;
        state.multiplexed |= multiplexed;
        state.phase = Phase::Busy;
    }

    /// The response is handed over to the connection, or the handler was dropped.
    pub fn request_ended(&self, now: Instant) {
        let mut state = self.lock();
        state.running = state.running.saturating_sub(1);
        if state.running == 0 {
            state.phase = Phase::Idle(now);
        }
    }

    /// A response has begun.
    pub fn response_started(&self, now: Instant) {
        let mut state = self.lock();
        state.answering += 1;
        state.progressed = now;
    }

    /// The client took a part of a response.
    pub fn response_progressed(&self, now: Instant) {
        self.lock().progressed = now;
    }

    /// The response has ended.
    pub fn response_ended(&self, now: Instant) {
        let mut state = self.lock();
        state.answering = state.answering.saturating_sub(1);
        state.progressed = now;
    }

    /// The client takes no more at the moment.
    pub fn write_blocked(&self, now: Instant) {
        let mut state = self.lock();
        state.stall.get_or_insert(Stall {
            since: now,
            written: 0,
        });
    }

    /// The client took `written` bytes of `offered`.
    pub fn wrote(&self, written: usize, offered: usize, now: Instant) {
        let mut state = self.lock();
        let Some(stall) = &mut state.stall else {
            return;
        };
        stall.written = stall.written.saturating_add(written);
        if written == offered {
            state.stall = None;
        } else if stall.written >= MIN_PROGRESS_BYTES {
            state.stall = Some(Stall {
                since: now,
                written: 0,
            });
        }
    }

    /// Returns why the connection has to be closed now, if it has.
    pub fn overdue(&self, now: Instant, limits: Limits) -> Option<Overdue> {
        let state = self.lock();
        let lasted =
            |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if let Some(stall) = state.stall {
            return lasted(stall.since, limits.write).then_some(Overdue::Write);
        }
        if state.answering > 0 && lasted(state.progressed, MAX_STANDSTILL) {
            return Some(Overdue::Write);
        }
        match state.phase {
            Phase::Idle(since) => lasted(since, limits.idle).then_some(Overdue::Idle),
            Phase::Head(since) => lasted(since, limits.head).then_some(Overdue::Head),
            Phase::Busy => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Activity, Limits, Overdue};

    const LIMITS: Limits = Limits {
        head: Duration::from_secs(5),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(30),
    };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn each_phase_has_its_own_limit() {
        let start = Instant::now();
        let activity = Activity::new(start);
        assert_eq!(activity.overdue(after(start, 74), LIMITS), None);
        assert_eq!(
            activity.overdue(after(start, 75), LIMITS),
            Some(Overdue::Idle)
        );
        activity.received(after(start, 80));
        activity.received(after(start, 83));
        assert_eq!(activity.overdue(after(start, 84), LIMITS), None);
        assert_eq!(
            activity.overdue(after(start, 85), LIMITS),
            Some(Overdue::Head)
        );
        activity.request_started(false);
        activity.received(after(start, 86));
        assert_eq!(activity.overdue(after(start, 9000), LIMITS), None);
        activity.request_ended(after(start, 9000));
        assert_eq!(activity.overdue(after(start, 9074), LIMITS), None);
        assert_eq!(
            activity.overdue(after(start, 9075), LIMITS),
            Some(Overdue::Idle)
        );
    }

    #[test]
    fn a_client_that_takes_almost_nothing_is_one_that_does_not_read() {
        let start = Instant::now();
        let activity = Activity::new(start);
        activity.request_started(false);
        activity.write_blocked(start);
        activity.wrote(100, 100_000, after(start, 20));
        activity.write_blocked(after(start, 20));
        assert_eq!(
            activity.overdue(after(start, 30), LIMITS),
            Some(Overdue::Write)
        );
        activity.wrote(20_000, 99_900, after(start, 31));
        assert_eq!(activity.overdue(after(start, 60), LIMITS), None);
        activity.wrote(10, 10, after(start, 61));
        assert_eq!(activity.overdue(after(start, 9000), LIMITS), None);
    }

    #[test]
    fn responses_of_which_nothing_is_taken_end_the_connection() {
        let start = Instant::now();
        let activity = Activity::new(start);
        activity.request_started(true);
        assert_eq!(activity.overdue(after(start, 9000), LIMITS), None);
        activity.response_started(after(start, 9000));
        activity.response_progressed(after(start, 9015));
        assert_eq!(activity.overdue(after(start, 9044), LIMITS), None);
        assert_eq!(
            activity.overdue(after(start, 9045), LIMITS),
            Some(Overdue::Write)
        );
        activity.response_ended(after(start, 9045));
        assert_eq!(activity.overdue(after(start, 9099), LIMITS), None);
    }

    #[test]
    fn on_a_connection_with_several_requests_the_last_one_begins_the_idle_time() {
        let start = Instant::now();
        let activity = Activity::new(start);
        activity.received(start);
        activity.handshake_ended(after(start, 4));
        assert_eq!(activity.overdue(after(start, 78), LIMITS), None);
        activity.request_started(true);
        activity.request_started(true);
        activity.request_ended(after(start, 100));
        assert_eq!(activity.overdue(after(start, 9000), LIMITS), None);
        activity.request_ended(after(start, 9000));
        // A ping or a window update is not the beginning of a head.
        activity.received(after(start, 9001));
        assert_eq!(activity.overdue(after(start, 9074), LIMITS), None);
        assert_eq!(
            activity.overdue(after(start, 9075), LIMITS),
            Some(Overdue::Idle)
        );
    }

    #[test]
    fn connections_without_work_are_closed_when_all_slots_are_taken() {
        let start = Instant::now();
        let activity = Activity::new(start);
        let overloaded = LIMITS.overloaded();
        assert_eq!(
            activity.overdue(after(start, 1), overloaded),
            Some(Overdue::Idle)
        );
        activity.received(start);
        assert_eq!(activity.overdue(after(start, 4), overloaded), None);
        activity.request_started(false);
        activity.write_blocked(start);
        assert_eq!(
            activity.overdue(after(start, 5), overloaded),
            Some(Overdue::Write)
        );
    }
}
