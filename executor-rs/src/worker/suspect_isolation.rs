//! Isolates a suspect: an entry that may have killed its earlier workers. `docs/decisions/014-crashes-and-deploys.md` has
//! the rule.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{watch, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// How long an isolation waits for the steps that run, and how long the suspect then runs alone.
const ISOLATION: Duration = Duration::from_secs(1);
/// After an isolation no further suspect is taken for so many times its length: it takes at most a fifth of the time.
const PAUSE_FACTOR: u32 = 4;

/// One per process: its lanes share the slots.
#[derive(Debug)]
pub struct SuspectIsolation {
    /// Held while a suspect is here.
    suspect: Arc<tokio::sync::Mutex<()>>,
    /// Whether nothing else may start.
    closed: watch::Sender<bool>,
    next: Mutex<Option<Instant>>,
    longest_pause: Duration,
}

impl SuspectIsolation {
    /// `lease`: the longest time for which no further suspect is taken.
    #[must_use]
    pub fn new(lease: Duration) -> Arc<Self> {
        Arc::new(Self {
            suspect: Arc::default(),
            closed: watch::Sender::new(false),
            next: Mutex::new(None),
            longest_pause: lease,
        })
    }

    /// The place of the one suspect, where it is free and the pause after the last one is over.
    #[must_use]
    pub fn place(&self) -> Option<OwnedMutexGuard<()>> {
        if self.next().is_some_and(|next| next > Instant::now()) {
            return None;
        }
        self.suspect.clone().try_lock_owned().ok()
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Wait until other steps may start.
    pub async fn open(&self) {
        let mut closed = self.closed.subscribe();
        // Cannot fail: this holds the sender.
        let _ = closed.wait_for(|closed| !closed).await;
    }

    /// Let nothing else start until the result is dropped.
    #[must_use]
    pub fn close(self: &Arc<Self>) -> Closed {
        self.closed.send_replace(true);
        Closed {
            isolation: self.clone(),
            since: Instant::now(),
        }
    }

    fn next(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of an isolation.
#[derive(Debug)]
pub struct Closed {
    isolation: Arc<SuspectIsolation>,
    since: Instant,
}

impl Drop for Closed {
    fn drop(&mut self) {
        let pause = self.since.elapsed() * PAUSE_FACTOR;
        let pause = pause.min(self.isolation.longest_pause);
        *self.isolation.next() = Instant::now().checked_add(pause);
        self.isolation.closed.send_replace(false);
    }
}

/// Wait until nothing else runs, and take all slots. Unless `strictly`, wait for a second, and then for one slot.
pub async fn slots_alone(
    slots: &Arc<Semaphore>,
    all: u32,
    strictly: bool,
) -> Option<OwnedSemaphorePermit> {
    let alone = slots.clone().acquire_many_owned(all);
    if strictly {
        return alone.await.ok();
    }
    match tokio::time::timeout(ISOLATION, alone).await {
        Ok(permits) => permits.ok(),
        Err(_) => slots.clone().acquire_owned().await.ok(),
    }
}

/// Run the suspect's step to its end. Unless `strictly`, other steps start again next to it after a second.
pub async fn run_isolated(
    mut step: impl Future<Output = ()> + Unpin,
    mut slots: OwnedSemaphorePermit,
    closed: Closed,
    strictly: bool,
) {
    if strictly {
        step.await;
        return;
    }
    if tokio::time::timeout(ISOLATION, &mut step).await.is_err() {
        drop(slots.split(slots.num_permits() - 1));
        drop(closed);
        step.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use tokio::sync::Semaphore;

    use super::{run_isolated, slots_alone, SuspectIsolation, ISOLATION};

    const LEASE: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_suspect_waits_a_second_for_others_and_the_last_delivery_for_as_long_as_it_takes() {
        let slots = Arc::new(Semaphore::new(3));
        let running = slots.clone().acquire_owned().await.unwrap();
        let began = Instant::now();
        let permits = slots_alone(&slots, 3, false).await.unwrap();
        assert_eq!(permits.num_permits(), 1);
        assert!(began.elapsed() >= ISOLATION);
        drop(permits);
        let strictly = slots_alone(&slots, 3, true);
        tokio::pin!(strictly);
        let waited = tokio::time::timeout(ISOLATION * 5 / 4, &mut strictly).await;
        assert!(waited.is_err());
        drop(running);
        assert_eq!(strictly.await.unwrap().num_permits(), 3);
    }

    #[tokio::test]
    async fn others_start_again_next_to_a_suspect_but_not_next_to_a_last_delivery() {
        for strictly in [false, true] {
            let isolation = SuspectIsolation::new(LEASE);
            let slots = Arc::new(Semaphore::new(3));
            let permits = slots_alone(&slots, 3, strictly).await.unwrap();
            assert_eq!((permits.num_permits(), slots.available_permits()), (3, 0));
            let (end, ended) = tokio::sync::oneshot::channel();
            let step = Box::pin(async {
                let () = ended.await.unwrap();
            });
            let run = run_isolated(step, permits, isolation.close(), strictly);
            tokio::pin!(run);
            assert!(isolation.is_closed());
            let later = tokio::time::timeout(ISOLATION * 5 / 4, &mut run).await;
            assert!(later.is_err(), "the step goes on");
            let free = if strictly { 0 } else { 2 };
            assert_eq!(
                (isolation.is_closed(), slots.available_permits()),
                (strictly, free)
            );
            end.send(()).unwrap();
            run.await;
            assert_eq!(
                (isolation.is_closed(), slots.available_permits()),
                (false, 3)
            );
        }
    }

    #[tokio::test]
    async fn a_pause_follows_an_isolation_and_there_is_one_place() {
        let isolation = SuspectIsolation::new(LEASE);
        let place = isolation.place();
        assert!(place.is_some() && isolation.place().is_none());
        drop(place);
        let mut closed = isolation.close();
        closed.since = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        drop(closed);
        let next = isolation.next().unwrap();
        assert!(isolation.place().is_none(), "four minutes are not over");
        assert!(next > Instant::now() + Duration::from_secs(239));
        *isolation.next() = Some(Instant::now());
        assert!(isolation.place().is_some());
        let short = SuspectIsolation::new(Duration::ZERO);
        drop(short.close());
        assert!(short.place().is_some(), "no longer than the lease");
    }
}
