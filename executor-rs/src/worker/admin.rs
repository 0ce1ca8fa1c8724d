//! The worker's admin endpoints: readiness and metrics.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use service::admin::Probe;
use tokio::net::TcpListener;

use super::Shared;

/// Probes come often; Redis must not delay the answer.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Bind the listener. The address is the real one where port 0 was asked for.
pub async fn bind(listen: &str) -> Result<(TcpListener, SocketAddr), String> {
    let failed = |error: std::io::Error| {
        format!("cannot listen on {listen} for metrics ({error}); set OCTOLLM_EXECUTOR_METRICS_LISTEN to a free address (port 0 picks one)")
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Serve the endpoints until the process stops.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = service::admin::router(WorkerProbe(shared.clone()), shared.supervisor.clone());
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the listener for metrics failed");
    }
}

struct WorkerProbe(Arc<Shared>);

impl Probe for WorkerProbe {
    async fn unready_reasons(&self) -> Vec<String> {
        let Shared { client, .. } = &*self.0;
        let mut reasons = self.0.unready_reasons();
        match tokio::time::timeout(PING_TIMEOUT, client.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => reasons.push(error.to_string()),
            Err(_) => reasons.push(format!("Redis at {} does not answer", client.address())),
        }
        reasons
    }

    fn encode_metrics(&self) -> Result<String, fmt::Error> {
        self.0.metrics.encode()
    }
}
