//! Owns every task of a process. A task that ends unexpectedly turns readiness red and stops the process.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::shutdown::{Signals, Stop};

/// Why the process cannot go on: which task ended, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub task: Arc<str>,
    pub cause: Arc<str>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "task \"{}\" {}", self.task, self.cause)
    }
}

impl std::error::Error for Failure {}

/// What a task returns: nothing, or why it cannot go on.
pub trait TaskResult {
    /// Why the task failed, as a sentence without a full stop.
    fn failure(self) -> Option<String>;
}

impl TaskResult for () {
    fn failure(self) -> Option<String> {
        None
    }
}

/// `None`: a test has ended the task.
#[cfg(debug_assertions)]
impl<R: TaskResult> TaskResult for Option<R> {
    fn failure(self) -> Option<String> {
        self.and_then(R::failure)
    }
}

impl<E: std::fmt::Display> TaskResult for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// One per process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    stop: Arc<watch::Sender<bool>>,
    failure: Arc<watch::Sender<Option<Failure>>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            stop: Arc::new(watch::Sender::new(false)),
            failure: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Supervisor {
    /// Spawn a task that runs until the process stops. An error, and its end before the order to stop, are failures.
    pub fn spawn_loop<R: TaskResult + Send + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        task: impl Future<Output = R> + Send + 'static,
    ) -> JoinHandle<()> {
        let name = name.into();
        #[cfg(debug_assertions)]
        let task = sabotage::wrap(Arc::clone(&name), task);
        self.spawn(name, task, true)
    }

    /// Spawn a task that ends by itself. An error and a panic are failures.
    pub fn spawn_task<R: TaskResult + Send + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        task: impl Future<Output = R> + Send + 'static,
    ) -> JoinHandle<()> {
        self.spawn(name.into(), task, false)
    }

    fn spawn<R: TaskResult + Send + 'static>(
        &self,
        name: Arc<str>,
        task: impl Future<Output = R> + Send + 'static,
        endless: bool,
    ) -> JoinHandle<()> {
        let supervisor = self.clone();
        tokio::spawn(async move {
            let cause = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(result) => match result.failure() {
                    Some(error) => format!("failed: {error}"),
                    None if !endless || *supervisor.stop.borrow() => return,
                    None => "ended unexpectedly".to_owned(),
                },
                Err(panic) => format!("panicked: {}", panic_message(&*panic)),
            };
            supervisor.fail(name, cause.into());
        })
    }

    /// Report that a task cannot go on, and why; the process stops.
    pub fn report(&self, name: impl Into<Arc<str>>, error: &impl std::fmt::Display) {
        self.fail(name.into(), format!("failed: {error}").into());
    }

    /// Record the first failure; later ones are usually its consequences and are only logged.
    fn fail(&self, task: Arc<str>, cause: Arc<str>) {
        let failure = Failure { task, cause };
        // Before anyone acts on it, so the last line of the log is the process's own.
        tracing::error!(task = %failure.task, cause = %failure.cause, "a task of this process broke; the process stops");
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(failure);
            }
            first
        });
    }

    /// The first failure. While there is one, the process is not ready.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    /// Wait until a task has failed.
    pub async fn failed(&self) -> Failure {
        let mut receiver = self.failure.subscribe();
        let known = receiver.wait_for(Option::is_some).await;
        let failure = known.ok().and_then(|failure| failure.clone());
        match failure {
            Some(failure) => failure,
            // Not possible: this supervisor holds the sender.
            None => std::future::pending().await,
        }
    }

    /// Wait for a signal or a failure, then give all tasks the order to stop.
    pub async fn until_stop(&self, signals: &mut Signals) -> Result<(), Failure> {
        let ended = tokio::select! {
            () = signals.received() => Ok(()),
            failure = self.failed() => Err(failure),
        };
        self.request_stop();
        ended
    }

    /// Give all tasks the order to stop.
    pub fn request_stop(&self) {
        self.stop.send_replace(true);
    }

    /// The order to stop, for a task to follow.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop::new(self.stop.subscribe())
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Lets a test break one loop of a real process. Compiled into debug builds only.
#[cfg(debug_assertions)]
mod sabotage {
    use std::future::Future;
    use std::sync::Arc;
    use std::time::Duration;

    /// `<name>=panic` or `<name>=end`.
    const VARIABLE: &str = "TEST_BREAK_LOOP";

    pub(super) async fn wrap<R>(name: Arc<str>, task: impl Future<Output = R> + Send) -> Option<R> {
        let order = std::env::var(VARIABLE).unwrap_or_default();
        match order.split_once('=') {
            Some((broken, how)) if broken == &*name => {
                // Long enough for the process to have become ready.
                let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
                assert!(how != "panic", "broken by a test");
                None
            }
            _ => Some(task.await),
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic)] // what is under test
mod tests {
    use super::Supervisor;

    #[tokio::test]
    async fn a_loop_that_ends_is_a_failure() {
        let supervisor = Supervisor::default();
        assert_eq!(supervisor.failure(), None);
        supervisor.spawn_loop("reader", async {});
        let failure = supervisor.failed().await;
        assert_eq!(failure.to_string(), "task \"reader\" ended unexpectedly");
        assert_eq!(supervisor.failure(), Some(failure));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_loops_and_tasks() {
        for endless in [true, false] {
            let supervisor = Supervisor::default();
            let task = async {
                let lucky = std::hint::black_box(false);
                assert!(lucky, "out of {}", "luck");
            };
            if endless {
                supervisor.spawn_loop("one", task);
            } else {
                supervisor.spawn_task("one", task);
            }
            let failure = supervisor.failed().await;
            assert_eq!(failure.to_string(), "task \"one\" panicked: out of luck");
        }
    }

    #[tokio::test]
    async fn an_error_is_a_failure_of_loops_and_tasks_also_after_the_order_to_stop() {
        for endless in [true, false] {
            let supervisor = Supervisor::default();
            supervisor.request_stop();
            let task = async { Err::<(), _>("NOPERM") };
            if endless {
                supervisor.spawn_loop("one", task);
            } else {
                supervisor.spawn_task("one", task);
            }
            let failure = supervisor.failed().await;
            assert_eq!(failure.to_string(), "task \"one\" failed: NOPERM");
        }
    }

    #[tokio::test]
    async fn an_ordered_end_is_no_failure() {
        let supervisor = Supervisor::default();
        let stop = supervisor.stop();
        let follows = supervisor.spawn_loop("follows", async move { stop.requested().await });
        let ends = supervisor.spawn_task("ends", async {});
        assert!(ends.await.is_ok());
        supervisor.request_stop();
        assert!(follows.await.is_ok());
        assert_eq!(supervisor.failure(), None);
    }

    #[tokio::test]
    async fn the_first_failure_counts() {
        let supervisor = Supervisor::default();
        let first = supervisor.spawn_loop("first", async {});
        assert!(first.await.is_ok());
        let second = supervisor.spawn_loop("second", async {});
        assert!(second.await.is_ok());
        assert_eq!(&*supervisor.failed().await.task, "first");
    }
}
