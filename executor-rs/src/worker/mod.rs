//! The worker: runs the executor's steps from every lane until it is asked to stop. Wires; decides nothing.

mod admin;
mod circuit_breaker;
mod consumer;
mod delivery;
mod execution;
mod metrics;
mod priority_reader;
mod reclaimer;
mod shutdown;
mod suspect_isolation;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::{consumer_name, Backoff, ConsumerGroup, Control, Entry, Leases, RedisClient, Refusal};
use contracts::keys::LaneKeys;
use contracts::settings::{self, Settings};
use contracts::topology::{self, Topic, Topology};
use service::{Failure, Signals, Supervisor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::isolation;
use crate::sandbox::workspace;
use crate::step::run::StepRunner;
use circuit_breaker::CircuitBreaker;
use consumer::Consumer;
use metrics::Metrics;
use suspect_isolation::SuspectIsolation;

const ARM: &str = "executor";
/// Where this machine gives no sandbox, it may after an operator's change.
const SANDBOX_RETRY: Duration = Duration::from_secs(15);

/// Why the worker cannot start or go on; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    #[error(transparent)]
    Topology(#[from] topology::TopologyError),
    #[error("the topology has no topic arm.{ARM}; add it to streams.yaml")]
    NoTopic,
    #[error("the settings of Redis cannot be used: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("{0}")]
    Workspaces(String),
    #[error("{0}")]
    Listen(String),
    #[error("signals cannot be handled: {0}")]
    Signals(#[from] std::io::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Broken(#[from] Failure),
}

/// What all lanes and the admin endpoints share.
#[derive(Debug)]
pub struct Shared {
    metrics: Arc<Metrics>,
    client: RedisClient,
    supervisor: Supervisor,
    leases: Arc<Leases>,
    slots: Arc<Semaphore>,
    breaker: CircuitBreaker,
    /// Slots of entries that began elsewhere before: one crash's entries must not take all.
    restarts: Arc<Semaphore>,
    isolation: Arc<SuspectIsolation>,
    /// Why no step can be run here; `None` while the sandbox works.
    sandbox_fault: Mutex<Option<String>>,
}

/// An entry's place among those that run; free again when dropped.
struct Slots {
    _slot: OwnedSemaphorePermit,
    _restart: Option<OwnedSemaphorePermit>,
}

impl Shared {
    fn unready_reasons(&self) -> Vec<String> {
        let fault = self.sandbox_fault.lock();
        let fault = fault.unwrap_or_else(PoisonError::into_inner).clone();
        fault
            .into_iter()
            .chain(self.breaker.unready_reason())
            .collect()
    }

    fn set_sandbox_fault(&self, fault: Option<String>) {
        let known = self.sandbox_fault.lock();
        *known.unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Wait until a step may be started; answer how many at most. Takes no slot: a reader that held one while it is
    /// blocked would keep other lanes from working.
    async fn capacity(&self) -> usize {
        self.isolation.open().await;
        drop(self.slots.acquire().await);
        let permits = self.breaker.permits().await;
        permits.min(self.slots.available_permits().max(1))
    }

    /// What an entry needs to start now.
    fn try_take_slots(&self, entry: &Entry) -> Option<Slots> {
        if self.supervisor.stop().is_requested() || self.isolation.is_closed() {
            return None;
        }
        let restart = if entry.delivery > 1 {
            Some(self.restarts.clone().try_acquire_owned().ok()?)
        } else {
            None
        };
        Some(Slots {
            _slot: self.slots.clone().try_acquire_owned().ok()?,
            _restart: restart,
        })
    }
}

/// How many of the slots may be taken by entries that began elsewhere before.
fn restart_slots(concurrency: u32) -> usize {
    (concurrency as usize / 2).max(1)
}

/// Run until SIGTERM or SIGINT.
pub async fn run(settings: &Settings) -> Result<(), WorkerError> {
    let mut signals = Signals::install()?;
    let supervisor = Supervisor::default();
    let schemas = settings::share_dir()?.join("schemas/events");
    let topology = topology::load(&settings.topology_path()?, &schemas)?;
    let topic = Arc::new(topology.arm(ARM).ok_or(WorkerError::NoTopic)?.clone());
    // Whatever else a sandbox needs may appear later; a missing folder is a wrong setting.
    workspace::parent(&settings.executor.workspace_dir).map_err(WorkerError::Workspaces)?;
    let (client, keep_connected) = RedisClient::open(&settings.redis)?;
    let consumer = consumer_name(ARM, &settings.executor.consumer);
    let metrics = Arc::new(Metrics::new(&topic.name));
    let rule = circuit_breaker::rule(&settings.worker, &topology);
    let shared = Arc::new(Shared {
        breaker: CircuitBreaker::new(rule, &topic.name, metrics.clone()),
        metrics,
        leases: Leases::new(client.clone(), &topic.group, &consumer),
        client,
        supervisor: supervisor.clone(),
        slots: Arc::new(Semaphore::new(topic.concurrency as usize)),
        restarts: Arc::new(Semaphore::new(restart_slots(topic.concurrency))),
        isolation: SuspectIsolation::new(Duration::from_secs(topic.lease_s)),
        sandbox_fault: Mutex::new(Some("the sandbox is being tried".to_owned())),
    });
    let (listener, address) = admin::bind(&settings.executor.metrics_listen)
        .await
        .map_err(WorkerError::Listen)?;
    supervisor.spawn_loop("admin endpoints", admin::serve(listener, shared.clone()));
    supervisor.spawn_loop("redis connection", keep_connected);
    tracing::info!(%address, %consumer, "started");
    let prepared = async {
        let runner = Arc::new(working_sandbox(settings, &shared).await);
        let consumers = consumers(&topology, &topic, &consumer, &runner, &shared);
        create_groups(&consumers).await?;
        Ok::<_, Refusal>(consumers)
    };
    let consumers = tokio::select! {
        consumers = prepared => consumers?,
        ended = supervisor.until_stop(&mut signals) => return Ok(ended?),
    };
    let heartbeat = Duration::from_secs(topic.heartbeat_s);
    supervisor.spawn_loop("lease renewal", shared.leases.clone().run(heartbeat));
    supervisor.spawn_loop(
        "control channel",
        follow_control(shared.clone(), topology.lanes.clone()),
    );
    let mut loops = Vec::new();
    for consumer in &consumers {
        loops.push(supervisor.spawn_loop("reader", consumer.clone().read_loop()));
        loops.push(supervisor.spawn_loop("reclaimer", consumer.clone().reclaim_loop()));
    }
    tracing::info!(
        lanes = consumers.len(),
        slots = topic.concurrency,
        "working"
    );
    let ended = supervisor.until_stop(&mut signals).await;
    let drain = match ended {
        Ok(()) => Duration::from_secs(settings.executor.drain_s),
        // Leases may not be renewed any longer: others are to run the steps.
        Err(_) => Duration::ZERO,
    };
    shutdown::drain(&shared, &consumers, loops, drain).await;
    Ok(ended?)
}

/// A sandbox that works. Without one no step is read: other workers may have one.
async fn working_sandbox(settings: &Settings, shared: &Shared) -> StepRunner {
    loop {
        match isolation::find(&settings.executor).await {
            Ok(isolation) => {
                let sandbox = &isolation.runner.sandbox;
                let left_behind = workspace::remove_leftovers(&sandbox.workspace_dir);
                tracing::info!(
                    tier = sandbox.tier.as_str(),
                    features = isolation.features.join(" "),
                    left_behind,
                    "the sandbox works"
                );
                shared.set_sandbox_fault(None);
                return isolation.runner;
            }
            Err(error) => {
                tracing::error!(%error, "no step can be run on this machine; trying again");
                shared.set_sandbox_fault(Some(format!("sandbox_unavailable: {error}")));
            }
        }
        tokio::time::sleep(SANDBOX_RETRY).await;
    }
}

fn consumers(
    topology: &Topology,
    topic: &Arc<Topic>,
    consumer: &str,
    runner: &Arc<StepRunner>,
    shared: &Arc<Shared>,
) -> Vec<Arc<Consumer>> {
    let lanes = topology.lanes.iter().map(|lane| {
        let keys = LaneKeys::new(lane);
        let client = shared.client.clone();
        Arc::new(Consumer {
            group: ConsumerGroup::of_topic(client, &keys, topic, topology, consumer),
            keys,
            topic: topic.clone(),
            runner: runner.clone(),
            shared: shared.clone(),
        })
    });
    lanes.collect()
}

/// Wait until every lane's groups exist. Fails if Redis refuses to create them.
async fn create_groups(consumers: &[Arc<Consumer>]) -> Result<(), Refusal> {
    for consumer in consumers {
        let mut backoff = Backoff::default();
        while let Err(error) = consumer.group.create().await {
            error.check_transient(format!(
                "create the consumer groups of {}",
                consumer.topic.name
            ))?;
            tracing::warn!(%error, "cannot create consumer groups; trying again");
            backoff.wait().await;
        }
    }
    Ok(())
}

/// Stop at once the steps of runs that are reported as ended. What is not heard, the next heartbeat finds. Ends only if
/// Redis refuses the subscription.
async fn follow_control(shared: Arc<Shared>, lanes: Vec<String>) -> Result<(), Refusal> {
    let lanes = lanes.into_iter().map(LaneKeys::new);
    let channels: Vec<String> = lanes.map(|keys| keys.control()).collect();
    let mut backoff = Backoff::default();
    loop {
        let error = match Control::subscribe(&shared.client, &channels).await {
            Err(error) => error,
            Ok(mut control) => loop {
                backoff.reset();
                match control.next_ended_run().await {
                    Ok((_, run)) => shared.leases.check_ended(&run).await,
                    Err(error) => break error,
                }
            },
        };
        error.check_transient("subscribe to the control channels")?;
        shared.metrics.count_redis_error("listen");
        tracing::warn!(%error, "cannot follow the control channel; trying again");
        backoff.wait().await;
    }
}
