//! Starts the reflex: settings, topology, rules, the connection to Redis, HTTP and ingest. Wires only; decides nothing.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bus::{consumer_name, Leases, RedisClient};
use clap::Parser;
use contracts::settings::{self, Anonymous, Settings};
use contracts::topology::Topology;
use indexmap::IndexMap;
use octollm_reflex::admission::Rules;
use octollm_reflex::auth::{Authenticator, Clock, Keys, Refresh, Tokens};
use octollm_reflex::caller::{Caller, ANONYMOUS_TENANT};
use octollm_reflex::cli::Cli;
use octollm_reflex::configuration::{disabled, listen_address, prepare, quotas_file, Prepared};
use octollm_reflex::healthcheck;
use octollm_reflex::http::{self, AllowedHosts, App, Limits};
use octollm_reflex::ingest::{self, Common, Consumer};
use octollm_reflex::kinds::Kinds;
use octollm_reflex::lookup::Lookup;
use octollm_reflex::metrics::Metrics;
use octollm_reflex::open_files;
use octollm_reflex::quotas::Quotas;
use octollm_reflex::store::{RedisStore, RESPONSE_TIMEOUT};
use octollm_reflex::submit::{Durability, Service, ServiceConfig};
use octollm_reflex::upstream::{ApiClient, CallerSigner};
use octollm_reflex::webhooks::Source;
use service::console::{print_error, print_line};
use service::{logging, Signals, Supervisor};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// A submission makes dozens of small allocations, which this allocator serves in half the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Open files besides the connections of clients: those to Redis and the API, the log, the runtime's own.
const OTHER_FILES: u64 = 128;

type Failure = Box<dyn std::error::Error>;

/// Wrong arguments or settings: starting again changes nothing.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.healthcheck {
        return check_health();
    }
    if cli.check_config {
        return check_config();
    }
    let prepared = match prepare() {
        Ok(prepared) => prepared,
        Err(faults) => {
            for fault in faults {
                print_error(&format!("octollm-reflex cannot start: {fault}"));
            }
            return ExitCode::from(MISUSE);
        }
    };
    match start(prepared) {
        Ok(code) => code,
        Err(error) => {
            print_error(&format!("octollm-reflex cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn check_health() -> ExitCode {
    let listen = settings::load()
        .map_err(Failure::from)
        .and_then(|settings| {
            let address = listen_address(&settings.reflex)?;
            Ok((address, settings.reflex.tls_certificate_file))
        });
    let (address, certificate) = match listen {
        Ok(listen) => listen,
        Err(error) => {
            print_error(&format!(
                "octollm-reflex: the health check could not run: {error}"
            ));
            return ExitCode::from(MISUSE);
        }
    };
    match healthcheck::check(address, &certificate) {
        Ok(answer) => {
            print_line(&answer);
            ExitCode::SUCCESS
        }
        Err(reason) => {
            print_error(&format!("octollm-reflex is not ready: {reason}"));
            ExitCode::FAILURE
        }
    }
}

/// Says whether the reflex would start with this configuration. Connects to nothing and opens no port.
fn check_config() -> ExitCode {
    match prepare() {
        Ok(prepared) => {
            for (source, expected) in disabled(&prepared.sources) {
                print_line(&format!(
                    "webhook source {source} is disabled: {expected} is not set"
                ));
            }
            print_line("configuration is valid");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in faults {
                print_error(&fault.to_string());
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether a request without a credential is accepted.
fn is_anonymous_allowed(anonymous: Anonymous, address: SocketAddr) -> bool {
    match anonymous {
        Anonymous::Auto => address.ip().is_loopback(),
        Anonymous::On => true,
        Anonymous::Off => false,
    }
}

fn start(prepared: Prepared) -> std::io::Result<ExitCode> {
    let _flush = logging::start(&prepared.settings.log, "octollm_reflex")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(prepared));
    // What still runs has had its time.
    runtime.shutdown_background();
    Ok(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("octollm-reflex stops: {error}");
            ExitCode::FAILURE
        }
    })
}

async fn run(prepared: Prepared) -> Result<(), Failure> {
    let Prepared {
        settings,
        topology,
        sources,
        quotas,
        tokens,
        address,
        certificate,
    } = prepared;
    let reflex = &settings.reflex;
    // Before anyone can know that this runs, so that a signal never meets the system's default action.
    let mut signals = Signals::install()?;
    let supervisor = Supervisor::default();
    raise_open_files(reflex.max_connections);
    let listener = listen(address).await?;
    let anonymous = is_anonymous_allowed(reflex.anonymous, address);
    warn_about_anonymous(anonymous, address);
    let (client, keep_connected) = RedisClient::open_with(&settings.redis, RESPONSE_TIMEOUT)?;
    supervisor.spawn_loop("redis connection", keep_connected);
    let name = consumer_name("reflex", &reflex.consumer);
    let leases = Leases::new(client.clone(), &topology.ingest.group, &name);
    let heartbeat = Duration::from_secs(topology.ingest.heartbeat_s);
    supervisor.spawn_loop("lease renewal", Arc::clone(&leases).run(heartbeat));
    let authenticator = authenticator(anonymous, tokens, client.clone(), &supervisor)?;
    let topology = Arc::new(topology);
    let metrics = Arc::new(Metrics::default());
    let quotas = Quotas::start(
        quotas_file(&settings),
        quotas,
        &topology,
        client.clone(),
        Arc::clone(&metrics),
        &supervisor,
    );
    let service = submission_service(&settings, &topology, client.clone(), quotas, &supervisor)?;
    let service = Arc::new(service);
    let common = Arc::new(Common {
        service: Arc::clone(&service),
        redis: client,
        metrics: Arc::clone(&metrics),
        name,
        leases,
        health: Arc::default(),
        body_limit: reflex.body_limit_bytes,
        drain: Duration::from_secs(reflex.drain_s),
    });
    let mut loops = Vec::new();
    for tenant in ingest::tenants(&topology)? {
        let consumer = Consumer::new(Arc::clone(&common), tenant, supervisor.clone());
        loops.push(supervisor.spawn_loop("ingest consumer", consumer.run()));
    }
    log_disabled(&sources);
    let running = service.running.clone();
    let app = Arc::new(App {
        service,
        metrics: Arc::clone(&metrics),
        ingest: Arc::clone(&common.health),
        sources,
        authenticator: Arc::new(authenticator),
        submission_slots: Semaphore::new(reflex.max_submissions),
        event_slots: Arc::new(Semaphore::new(event_stream_limit(reflex))),
        supervisor: supervisor.clone(),
        limits: Limits {
            body_bytes: reflex.body_limit_bytes,
            body_timeout: Duration::from_secs(reflex.body_timeout_s),
        },
        cors_origins: reflex
            .cors_origins()
            .map(str::parse)
            .collect::<Result<_, _>>()?,
        hosts: AllowedHosts::new(address, &reflex.url, anonymous),
    });
    tracing::info!(address = %listener.local_addr()?, consumer = common.name, "listening");
    let certificate = certificate.map(Arc::new);
    if let Some(certificate) = &certificate {
        supervisor.spawn_loop("certificate", Arc::clone(certificate).keep_fresh());
    }
    let server = http::serve(
        listener,
        http::router(app),
        certificate,
        metrics,
        reflex.clone(),
        supervisor.clone(),
    );
    loops.push(supervisor.spawn_loop("http server", server));
    let ended = supervisor.until_stop(&mut signals).await;
    tracing::info!("stopping: finishing what is running");
    for task in loops {
        // A task that broke was reported by the supervisor.
        let _ = task.await;
    }
    finish(&running, Duration::from_secs(reflex.drain_s)).await;
    ended?;
    tracing::info!("stopped in order");
    Ok(())
}

fn warn_about_anonymous(anonymous: bool, address: SocketAddr) {
    if anonymous && !address.ip().is_loopback() {
        tracing::warn!(
            "reflex.anonymous is \"on\": anyone who reaches {address} submits, reads and cancels as tenant \"default\" without \
             a credential"
        );
    }
}

/// Lets the submissions that outlived their requests end.
async fn finish(running: &TaskTracker, drain: Duration) {
    running.close();
    if tokio::time::timeout(drain, running.wait()).await.is_err() {
        tracing::warn!("some submissions did not end within reflex.drain_s");
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on {address} ({error}); free it or set OCTOLLM_REFLEX_LISTEN").into()
    })
}

/// Raises the limit of open files; warns if it is still too low for so many connections.
fn raise_open_files(connections: usize) {
    let wanted = connections as u64 + OTHER_FILES;
    if let Some(limit) = open_files::raise_limit().filter(|limit| *limit < wanted) {
        tracing::warn!(
            limit,
            "the limit of open files is too low for reflex.max_connections; raise it (ulimit -n)"
        );
    }
}

/// Event streams stay open for long, so they never take all connections.
fn event_stream_limit(reflex: &settings::Reflex) -> usize {
    let share = reflex.max_connections - reflex.max_connections / 4;
    reflex.max_event_streams.min(share.max(1))
}

fn authenticator(
    anonymous: bool,
    tokens: Option<Tokens>,
    redis: RedisClient,
    supervisor: &Supervisor,
) -> Result<Authenticator, Failure> {
    let keys = Arc::new(Keys::default());
    let refresh = Refresh::new(redis.clone(), Arc::clone(&keys));
    supervisor.spawn_loop("api keys", refresh.run());
    for keep_fresh in tokens.iter().flat_map(Tokens::loops) {
        supervisor.spawn_loop("keys of an issuer", keep_fresh);
    }
    let anonymous = anonymous.then(|| ANONYMOUS_TENANT.parse().map(Caller::new));
    Ok(Authenticator {
        keys,
        tokens,
        anonymous: anonymous.transpose()?,
        clock: redis_clock(redis),
    })
}

fn redis_clock(redis: RedisClient) -> Clock {
    Arc::new(move || redis.now_ms().ok())
}

fn submission_service(
    settings: &Settings,
    topology: &Arc<Topology>,
    redis: RedisClient,
    quotas: Arc<Quotas>,
    supervisor: &Supervisor,
) -> Result<Service, Failure> {
    let reflex = &settings.reflex;
    let clock = redis_clock(redis.clone());
    let durability_wait = Duration::from_secs(reflex.durability_wait_s);
    let kinds = Arc::new(Kinds::default());
    supervisor.spawn_loop("published kinds", Arc::clone(&kinds).follow(redis.clone()));
    let store = RedisStore::new(
        redis,
        Arc::clone(topology),
        supervisor,
        reflex.idempotency_ttl_s,
        durability_wait,
    );
    let api = &settings.api;
    let api = (!api.url.is_empty()).then(|| {
        let signer = CallerSigner::new(&api.secret, clock);
        Arc::new(ApiClient::new(&api.url, reflex.max_forwards, signer))
    });
    Ok(Service {
        lookup: Lookup {
            store: Arc::new(store),
            api,
        },
        rules: Arc::new(Rules::built_in()?),
        kinds,
        topology: Arc::clone(topology),
        quotas,
        config: ServiceConfig {
            durability: Durability::required_by(reflex),
            replicas: reflex.durability_replicas,
            durability_wait,
        },
        supervisor: supervisor.clone(),
        running: TaskTracker::new(),
    })
}

/// A source without a secret is not an error: an operator who wants no webhooks sets none.
fn log_disabled(sources: &IndexMap<String, Source>) {
    for (source, expected) in disabled(sources) {
        tracing::info!(source, "webhook source disabled: {expected} is not set");
    }
}
