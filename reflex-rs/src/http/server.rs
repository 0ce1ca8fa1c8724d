//! Accepts connections within the limits and shuts them down gracefully. Knows nothing about what is served.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use contracts::settings;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use service::Supervisor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long to wait after a failed accept, for example when the limit of open files is reached.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the order to stop, then lets running requests end within `reflex.drain_s`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: settings::Reflex,
    supervisor: Supervisor,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(settings.header_timeout_s));
    let slots = Arc::new(Semaphore::new(
        settings.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let graceful = GracefulShutdown::new();
    let stop = supervisor.stop();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stop.requested() => break,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; raise the limit of open files (ulimit -n)");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        supervisor.spawn_task("connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended with an error");
            }
            drop(slot);
        });
    }
    drop(listener);
    let drain = Duration::from_secs(settings.drain_s);
    if tokio::time::timeout(drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("closing connections whose requests did not end within reflex.drain_s");
    }
}

/// Accepts one connection once there is a slot. Beyond the limit, connections wait in the kernel's backlog.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Responses are small, so batching them would only add delay. A failure means that the client is gone, which shows later.
    let _ = stream.set_nodelay(true);
    Ok((stream, slot))
}
