//! Starts the reflex: settings, topology, rules, the way to Redis, both doors. Wires only; decides nothing.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use contracts::settings::{self, Settings};
use contracts::topology::{self, Topology};
use indexmap::IndexMap;
use octollm_reflex::admission::Rules;
use octollm_reflex::caller::Caller;
use octollm_reflex::cli::{self, Command};
use octollm_reflex::healthcheck;
use octollm_reflex::http::{self, App, Limits};
use octollm_reflex::ingest::{self, Common};
use octollm_reflex::logs;
use octollm_reflex::lookup::Lookup;
use octollm_reflex::metrics::Metrics;
use octollm_reflex::store::Link;
use octollm_reflex::submit::{Durability, Service, ServiceConfig};
use octollm_reflex::task_store::RedisStore;
use octollm_reflex::upstream::ApiClient;
use octollm_reflex::webhooks::{self, Secrets, Source};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::{watch, Semaphore};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

type Failure = Box<dyn std::error::Error>;

/// Wrong arguments or settings: starting again changes nothing.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    match cli::parse(std::env::args().skip(1)) {
        Command::Run => {}
        Command::Healthcheck => return check_health(),
        Command::Help => {
            print!("{}", cli::HELP);
            return ExitCode::SUCCESS;
        }
        Command::Version => {
            println!("octollm-reflex {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Command::Unknown(argument) => {
            eprintln!("octollm-reflex: unknown argument {argument}; try octollm-reflex --help");
            return ExitCode::from(MISUSE);
        }
    }
    let prepared = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("octollm-reflex cannot start: {error}");
            return ExitCode::from(MISUSE);
        }
    };
    logs::start(&prepared.settings.log);
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(prepared)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("octollm-reflex cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check_health() -> ExitCode {
    let listen = settings::load()
        .map_err(Failure::from)
        .and_then(|settings| listen_address(&settings.reflex));
    let address = match listen {
        Ok(address) => address,
        Err(error) => {
            eprintln!("octollm-reflex cannot be asked: {error}");
            return ExitCode::from(MISUSE);
        }
    };
    match healthcheck::ask(address) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("octollm-reflex is not ready: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that a person has to correct when it is wrong.
struct Prepared {
    settings: Settings,
    topology: Topology,
    sources: IndexMap<String, Source>,
    address: SocketAddr,
}

fn prepare() -> Result<Prepared, Failure> {
    let settings = settings::load()?;
    let schemas = settings.share_dir()?.join("schemas/events");
    let topology = topology::load(&settings.topology_path()?, &schemas)?;
    let sources = contracts::webhooks::load(&settings.webhooks_path()?)?;
    let sources = webhooks::prepare(sources, |name| std::env::var(name).ok())?;
    let address = listen_address(&settings.reflex)?;
    redis::Client::open(settings.redis.url.as_str())
        .map_err(|_| "setting redis.url is refused: must be like redis://127.0.0.1:6379/0")?;
    Ok(Prepared {
        settings,
        topology,
        sources,
        address,
    })
}

/// Loopback, unless someone said that the network may be trusted.
fn listen_address(reflex: &settings::Reflex) -> Result<SocketAddr, Failure> {
    let listen = reflex.listen.replace("localhost:", "127.0.0.1:");
    let address: SocketAddr = listen.parse().map_err(|_| {
        "setting reflex.listen is refused: must be an IP address and a port, like 127.0.0.1:8080"
    })?;
    if address.ip().is_loopback() || reflex.trust_network {
        return Ok(address);
    }
    Err(
        "setting reflex.listen is refused: until there are credentials every caller is tenant \
        \"default\", so it must be a loopback address like 127.0.0.1:8080; where the network itself \
        keeps strangers out, OCTOLLM_REFLEX_TRUST_NETWORK=true allows any other"
            .into(),
    )
}

async fn run(prepared: Prepared) -> Result<(), Failure> {
    let Prepared {
        settings,
        topology,
        sources,
        address,
    } = prepared;
    let reflex = &settings.reflex;
    // Before anyone can know that this runs, so that a signal never finds the system's own answer to it.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| {
            format!("cannot listen on {address} ({error}); free it or set OCTOLLM_REFLEX_LISTEN")
        })?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            "reflex.trust_network is set: whoever reaches {address} submits and reads as tenant \"default\""
        );
    }
    let link = Link::open(&settings.redis)?;
    let wait = Duration::from_secs(reflex.durability_wait_s);
    let topology = Arc::new(topology);
    let store = RedisStore::new(
        link.clone(),
        Arc::clone(&topology),
        reflex.idempotency_ttl_s,
        wait,
    );
    let api = &settings.api.url;
    let api = (!api.is_empty()).then(|| Arc::new(ApiClient::new(api, reflex.max_forwards)));
    let service = Service {
        lookup: Lookup {
            store: Arc::new(store),
            api,
        },
        rules: Arc::new(Rules::built_in()?),
        topology: Arc::clone(&topology),
        config: ServiceConfig {
            durability: Durability::required_by(reflex),
            replicas: reflex.durability_replicas,
            durability_wait: wait,
        },
        running: TaskTracker::new(),
    };
    let metrics = Arc::new(Metrics::default());
    let common = Arc::new(Common {
        service: service.clone(),
        redis: link,
        metrics: Arc::clone(&metrics),
        name: ingest::own_name(&reflex.consumer)?,
        body_limit: reflex.body_limit_bytes,
        drain: Duration::from_secs(reflex.drain_s),
    });
    let (ask_to_stop, stop) = watch::channel(false);
    let mut consumers = JoinSet::new();
    for tenant in ingest::tenants(&topology)? {
        consumers.spawn(ingest::consume(Arc::clone(&common), tenant, stop.clone()));
    }
    report_unconfigured(&sources);
    let running = service.running.clone();
    let app = Arc::new(App {
        service,
        metrics,
        sources,
        anonymous: Caller::new("default".parse()?),
        event_slots: Arc::new(Semaphore::new(reflex.max_event_streams)),
        stop: stop.clone(),
        limits: Limits {
            body_bytes: reflex.body_limit_bytes,
            body_timeout: Duration::from_secs(reflex.body_timeout_s),
        },
    });
    tracing::info!(address = %listener.local_addr()?, consumer = common.name, "listening");
    let ask_to_stop = Arc::new(ask_to_stop);
    let by_signal = Arc::clone(&ask_to_stop);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::info!("asked to stop; finishing what is running");
        by_signal.send_replace(true);
    });
    let ingest = async {
        let mut all = Ok(());
        while let Some(ended) = consumers.join_next().await {
            // Half a reflex is worse than none: whoever watches the process starts it again.
            if let Err(error) = ended {
                ask_to_stop.send_replace(true);
                all = Err(error);
            }
        }
        all
    };
    let ((), ingest) = tokio::join!(
        http::serve(listener, http::router(app), reflex, stop),
        ingest
    );
    running.close();
    if tokio::time::timeout(Duration::from_secs(reflex.drain_s), running.wait())
        .await
        .is_err()
    {
        tracing::warn!("some submissions did not end within reflex.drain_s");
    }
    ingest.map_err(|error| format!("an ingest consumer broke down: {error}"))?;
    tracing::info!("ended in order");
    Ok(())
}

/// A source without a secret is not an error: an operator who wants no webhooks sets none.
fn report_unconfigured(sources: &IndexMap<String, Source>) {
    for (source, prepared) in sources {
        if let Secrets::NotConfigured(expected) = &prepared.secrets {
            tracing::info!(source, "webhook source disabled: {expected} is not set");
        }
    }
}
