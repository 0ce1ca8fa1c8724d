//! Work that goes on when its request is dropped.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use service::Supervisor;
use tokio::runtime::Handle;

type Panic = Box<dyn Any + Send>;
type BoxedFuture<T> = Pin<Box<dyn Future<Output = Result<T, Panic>> + Send>>;

/// Runs a future within the task that awaits it, which costs less than a task of its own. If this is dropped before the future
/// has ended, the future goes on as a task of its own.
pub(super) struct Detached<T: Send + 'static> {
    /// `None` once it has ended.
    future: Option<BoxedFuture<T>>,
    supervisor: Supervisor,
}

impl<T: Send + 'static> Detached<T> {
    /// A panic of the future is its result: it must not stop the process, because the next request could cause it again.
    pub fn new(future: impl Future<Output = T> + Send + 'static, supervisor: Supervisor) -> Self {
        Self {
            future: Some(Box::pin(AssertUnwindSafe(future).catch_unwind())),
            supervisor,
        }
    }
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = Result<T, Panic>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        let result = future.as_mut().poll(context);
        if result.is_ready() {
            self.future = None;
        }
        result
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if let (Some(future), Ok(_)) = (self.future.take(), Handle::try_current()) {
            self.supervisor
                .spawn_task("submission", async move { drop(future.await) });
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic)] // what is under test
mod tests {
    use std::sync::Arc;

    use service::Supervisor;
    use tokio::sync::Notify;

    use super::Detached;

    #[tokio::test]
    async fn a_dropped_future_goes_on_and_a_panic_is_a_result() {
        let supervisor = Supervisor::default();
        let (go, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (until, report) = (Arc::clone(&go), Arc::clone(&ended));
        let work = async move {
            until.notified().await;
            report.notify_one();
        };
        let mut detached = Box::pin(Detached::new(work, supervisor.clone()));
        assert!(futures_util::poll!(&mut detached).is_pending());
        drop(detached);
        go.notify_one();
        let limit = std::time::Duration::from_secs(30);
        let went_on = tokio::time::timeout(limit, ended.notified()).await;
        assert!(went_on.is_ok(), "it was dropped with its request");
        let broken = async { panic!("broken") };
        let result = Detached::<()>::new(broken, supervisor.clone()).await;
        assert!(result.is_err());
        assert_eq!(supervisor.failure(), None);
    }
}
