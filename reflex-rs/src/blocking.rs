//! Work that takes long on a large body, kept away from the threads that serve all other requests.

use std::num::NonZero;
use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// Work on so many bytes is done at once: moving it to another thread would cost more than such a body usually takes.
const MAX_INLINE_BYTES: usize = 16 * 1024;

/// As much of this work runs at once as there are cores; more would only slow down the other threads.
static SLOTS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get)));

/// Runs `work`, whose time grows with `bytes`. Large work does not hold up the other tasks of this thread.
pub async fn run_sized<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes <= MAX_INLINE_BYTES {
        return work();
    }
    // It fails only if it is closed, which it never is.
    let _slot = SLOTS.acquire().await;
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::block_in_place(work),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{run_sized, MAX_INLINE_BYTES};

    /// Whether another task of a runtime with one thread runs while work on so many bytes waits for it.
    fn others_run_meanwhile(bytes: usize) -> bool {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (sender, received) = mpsc::channel();
        let waits_for_other = runtime.spawn(run_sized(bytes, move || {
            received.recv_timeout(Duration::from_secs(2)).is_ok()
        }));
        runtime.spawn(async move { sender.send(()) });
        runtime.block_on(waits_for_other).unwrap()
    }

    #[test]
    fn large_work_does_not_hold_up_other_tasks() {
        assert!(others_run_meanwhile(MAX_INLINE_BYTES + 1));
        assert!(!others_run_meanwhile(MAX_INLINE_BYTES));
    }

    #[tokio::test]
    async fn large_work_also_runs_where_there_is_only_one_thread() {
        assert_eq!(run_sized(MAX_INLINE_BYTES + 1, || 7).await, 7);
    }
}
