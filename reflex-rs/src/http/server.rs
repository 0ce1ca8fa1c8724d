//! Accepts connections within the limits and shuts them down gracefully. Knows nothing about what is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use contracts::settings;
use hyper_util::server::graceful::GracefulShutdown;
use service::Supervisor;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client_slots::ClientSlots;
use super::connection::Connections;
use super::tls::Certificate;
use crate::metrics::Metrics;

/// How long to wait after a failed accept, for example when the limit of open files is reached.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When the kernel begins to check whether a silent client is still there, and how often it does.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Serves until the order to stop, then lets running requests end within `reflex.drain_s`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    certificate: Option<Arc<Certificate>>,
    metrics: Arc<Metrics>,
    settings: settings::Reflex,
    supervisor: Supervisor,
) {
    let slots = settings.max_connections.min(Semaphore::MAX_PERMITS);
    let slots = Arc::new(Semaphore::new(slots));
    let clients = ClientSlots::new(settings.max_connections_per_client);
    let connections = Connections::new(
        router,
        certificate,
        &settings,
        supervisor.clone(),
        Arc::clone(&slots),
    );
    let connections = Arc::new(connections);
    let graceful = GracefulShutdown::new();
    let stop = supervisor.stop();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stop.requested() => break,
        };
        let (socket, address, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; raise the limit of open files (ulimit -n)");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(client) = clients.acquire(address.ip()) else {
            tracing::debug!(client = %address.ip(), "closing a connection: the client has too many");
            metrics.connection_refused();
            continue;
        };
        let connection = Arc::clone(&connections).serve(socket, graceful.watcher());
        supervisor.spawn_task("connection", async move {
            connection.await;
            drop((slot, client));
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
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (socket, address) = listener.accept().await?;
    // A failure of either option means that the client is gone, which shows later.
    // Responses are small, so batching them would only add delay.
    let _ = socket.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL);
    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
    Ok((socket, address, slot))
}
