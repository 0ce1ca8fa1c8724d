//! The orderly end of a worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at, Instant};

use super::consumer::Consumer;
use super::Shared;

/// For each of the last calls to Redis.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How often it looks whether steps still run.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Wait for what reads, give back what was not started, wait up to `drain` for what runs, kill the rest, and leave.
pub(super) async fn drain(
    shared: &Shared,
    consumers: &[Arc<Consumer>],
    loops: Vec<JoinHandle<()>>,
    drain: Duration,
) {
    let deadline = Instant::now() + drain;
    tracing::info!(
        running = shared.leases.count(),
        "stopping: no new steps are started"
    );
    for running in loops {
        // One that broke was reported by the supervisor; one that hangs is left behind.
        let _ = timeout_at(deadline.max(Instant::now() + CALL_TIMEOUT), running).await;
    }
    for consumer in consumers {
        match timeout(CALL_TIMEOUT, consumer.release_unstarted()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "unstarted entries stay pending"),
            Err(_) => tracing::warn!("unstarted entries stay pending: Redis does not answer"),
        }
    }
    wait_for_steps(shared, deadline).await;
    if shared.leases.count() > 0 {
        tracing::warn!(
            running = shared.leases.count(),
            "steps outlived executor.drain_s; they are killed and released to other workers"
        );
        shared.leases.revoke_all();
        wait_for_steps(shared, Instant::now() + CALL_TIMEOUT).await;
    }
    for consumer in consumers {
        if let Ok(Err(error)) = timeout(CALL_TIMEOUT, consumer.group.leave()).await {
            tracing::warn!(%error, "could not leave the consumer group");
        }
    }
    tracing::info!("stopped");
}

async fn wait_for_steps(shared: &Shared, deadline: Instant) {
    while shared.leases.count() > 0 && Instant::now() < deadline {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
