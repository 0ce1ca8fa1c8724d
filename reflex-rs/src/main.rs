//! Starts the reflex: settings, topology, rules, Redis, listener. Wires only; decides nothing.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use contracts::{settings, topology};
use octollm_reflex::admission::Rules;
use octollm_reflex::http::{router, App};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--version") {
        println!("octollm-reflex {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("octollm-reflex cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let settings = settings::load()?;
    let schemas = settings::share_dir()?.join("schemas/events");
    let topology = topology::load(&settings.topology_path()?, &schemas)?;
    let address: SocketAddr = settings
        .reflex
        .listen
        .replace("localhost", "127.0.0.1")
        .parse()?;
    if !address.ip().is_loopback() {
        return Err("reflex.listen must be a loopback address: until there are credentials every caller is tenant default".into());
    }
    let wait = Duration::from_secs_f64(settings.redis.connect_timeout_s);
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(wait)
        .set_response_timeout(Duration::from_secs(5));
    let client = redis::Client::open(settings.redis.url.as_str())?;
    let shown = settings::without_credentials(&settings.redis.url);
    let redis = loop {
        match ConnectionManager::new_with_config(client.clone(), config.clone()).await {
            Ok(redis) => break redis,
            Err(error) => {
                tracing::warn!("no Redis at {shown} ({error}); start it or set OCTOLLM_REDIS_URL; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    let app = App {
        redis,
        rules: Arc::new(Rules::built_in()?),
        topology: Arc::new(topology),
        tenant: "default".parse()?,
        ttl_s: settings.reflex.idempotency_ttl_s,
        body_limit: settings.reflex.body_limit_bytes,
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    axum::serve(listener, router(app))
        .with_graceful_shutdown(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
        })
        .await?;
    Ok(())
}
