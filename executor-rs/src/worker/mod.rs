//! The worker: takes the executor's steps from every lane until it is told to end. Wires; decides nothing.

mod fuse;
pub mod http;
mod lane;
pub mod metrics;
mod step;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::keys::LaneKeys;
use contracts::settings::{self, Settings};
use contracts::topology::{self, Topic, Topology};
use redis::RedisError;
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use crate::sandbox::{probe, workspace, Sandbox};
use crate::source::control::Control;
use crate::source::leases::Leases;
use crate::source::link::Link;
use crate::source::pause::{chance, Pause};
use crate::source::Source;
use fuse::Fuse;
use lane::Lane;
use metrics::Metrics;

const ARM: &str = "executor";
/// Where this machine gives no sandbox, it may after an operator's change.
const SANDBOX_AGAIN: Duration = Duration::from_secs(15);
/// For each of the last calls to Redis.
const LAST_CALL: Duration = Duration::from_secs(3);

/// Why the worker cannot start; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    #[error(transparent)]
    Topology(#[from] topology::TopologyError),
    #[error("the topology has no topic arm.{ARM}; add it to streams.yaml")]
    NoTopic,
    #[error("redis.url cannot be used: {0}")]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Workspaces(String),
    #[error("{0}")]
    Listen(String),
    #[error("signals cannot be handled: {0}")]
    Signals(#[from] std::io::Error),
}

/// What all lanes and the listener share.
#[derive(Debug)]
pub struct Shared {
    pub metrics: Arc<Metrics>,
    pub calls: Arc<Link>,
    leases: Arc<Leases>,
    slots: Arc<Semaphore>,
    fuse: Fuse,
    claiming: tokio::sync::Mutex<()>,
    ending: AtomicBool,
    ended: Notify,
    /// Why no step can be run here; none: the sandbox works.
    no_sandbox: Mutex<Option<String>>,
}

impl Shared {
    /// What speaks against being ready.
    fn reasons(&self) -> Vec<String> {
        self.no_sandbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .chain(self.fuse.reason())
            .collect()
    }

    fn set_no_sandbox(&self, why: Option<String>) {
        *self
            .no_sandbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// Runs until SIGTERM or SIGINT.
pub async fn run() -> ExitCode {
    let settings = match settings::load() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("octollm-executor cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let _flush = match service::logging::start(&settings.log, "octollm_executor") {
        Ok(flush) => flush,
        Err(error) => {
            service::console::print_error(&format!("octollm-executor cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match work(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("octollm-executor cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn work(settings: &Settings) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let schemas = settings::share_dir()?.join("schemas/events");
    let topology = topology::load(&settings.topology_path()?, &schemas)?;
    let topic = Arc::new(topology.arm(ARM).ok_or(StartError::NoTopic)?.clone());
    // Whatever else a sandbox needs may come yet; a wrong folder is a wrong setting.
    workspace::parent(&settings.executor.workspace_dir).map_err(StartError::Workspaces)?;
    let consumer = consumer_name(&settings.executor.consumer);
    let metrics = Arc::new(Metrics::new(&topic.name));
    let rule = fuse::rule(&settings.worker, &topology);
    let shared = Arc::new(Shared {
        fuse: Fuse::new(rule, &topic.name, metrics.clone()),
        metrics,
        calls: Arc::new(Link::new(&settings.redis)?),
        leases: Leases::new(Link::new(&settings.redis)?, &topic.group, &consumer),
        slots: Arc::new(Semaphore::new(topic.concurrency as usize)),
        claiming: tokio::sync::Mutex::default(),
        ending: AtomicBool::new(false),
        ended: Notify::new(),
        no_sandbox: Mutex::new(Some("the sandbox is being tried".to_owned())),
    });
    let (listener, address) = http::listen(&settings.executor.metrics_listen)
        .await
        .map_err(StartError::Listen)?;
    tokio::spawn(http::serve(listener, shared.clone()));
    tracing::info!(%address, %consumer, "started");
    let sandbox = tokio::select! {
        sandbox = ready(settings, &shared) => Arc::new(sandbox),
        () = signals.wait() => return Ok(()),
    };
    let lanes = lanes(settings, &topology, &topic, &consumer, &sandbox, &shared)?;
    tokio::select! {
        () = reach_redis(&lanes) => {}
        () = signals.wait() => return Ok(()),
    }
    let heartbeat = Duration::from_secs(topic.heartbeat_s);
    let leases = shared.leases.clone();
    let beating = tokio::spawn(async move { leases.run(heartbeat).await });
    let mut loops = Vec::new();
    for lane in &lanes {
        loops.push(tokio::spawn(lane.clone().read_for_ever()));
        loops.push(tokio::spawn(lane.clone().claim_for_ever()));
    }
    let listening = tokio::spawn(listen(shared.clone(), topology.lanes.clone()));
    tracing::info!(lanes = lanes.len(), slots = topic.concurrency, "working");
    signals.wait().await;
    end(
        &shared,
        &lanes,
        loops,
        Duration::from_secs(settings.executor.drain_s),
    )
    .await;
    beating.abort();
    listening.abort();
    Ok(())
}

/// A sandbox that works. Without one no step is taken: other workers may be better off.
async fn ready(settings: &Settings, shared: &Shared) -> Sandbox {
    loop {
        match probe::find(&settings.executor).await {
            Ok(found) => {
                let left_behind = workspace::sweep(&found.sandbox.workspace_dir);
                let tier = found.sandbox.tier.as_str();
                tracing::info!(
                    tier,
                    features = found.features.join(" "),
                    left_behind,
                    "the sandbox works"
                );
                shared.set_no_sandbox(None);
                return found.sandbox;
            }
            Err(error) => {
                tracing::error!(%error, "no step can be run on this machine; trying again");
                shared.set_no_sandbox(Some(format!("sandbox_unavailable: {error}")));
            }
        }
        tokio::time::sleep(SANDBOX_AGAIN).await;
    }
}

fn lanes(
    settings: &Settings,
    topology: &Topology,
    topic: &Arc<Topic>,
    consumer: &str,
    sandbox: &Arc<Sandbox>,
    shared: &Arc<Shared>,
) -> Result<Vec<Arc<Lane>>, StartError> {
    let mut lanes = Vec::new();
    for name in &topology.lanes {
        let reading = Link::new(&settings.redis)?;
        let calls = shared.calls.clone();
        lanes.push(Arc::new(Lane {
            source: Source::new(
                name,
                topology,
                topic.clone(),
                consumer.to_owned(),
                reading,
                calls,
            ),
            sandbox: sandbox.clone(),
            shared: shared.clone(),
        }));
    }
    Ok(lanes)
}

/// Stops at once the steps of tasks that are said to be cancelled. Whatever is not heard, the next heartbeat finds.
async fn listen(shared: Arc<Shared>, lanes: Vec<String>) {
    let lanes: HashMap<String, LaneKeys> = lanes
        .into_iter()
        .map(LaneKeys::new)
        .map(|keys| (keys.control(), keys))
        .collect();
    let channels: Vec<String> = lanes.keys().cloned().collect();
    let mut pause = Pause::default();
    loop {
        let error = match Control::subscribe(&shared.calls, &channels).await {
            Err(error) => error,
            Ok(mut control) => loop {
                pause.over();
                match control.cancelled().await {
                    Ok((channel, task)) => {
                        if let Some(keys) = lanes.get(&channel) {
                            shared.leases.cancel(&keys.cancel(&task)).await;
                        }
                    }
                    Err(error) => break error,
                }
            },
        };
        shared.metrics.trouble("listen");
        tracing::warn!(%error, "cannot listen on the control channel; trying again");
        pause.wait().await;
    }
}

/// Until every lane's groups exist.
async fn reach_redis(lanes: &[Arc<Lane>]) {
    for lane in lanes {
        let mut pause = Pause::default();
        while let Err(error) = lane.source.create_groups().await {
            let redis = &lane.source.calls.shown;
            tracing::warn!(
                "no Redis at {redis} ({error}); start it or set OCTOLLM_REDIS_URL; trying again"
            );
            pause.wait().await;
        }
    }
}

/// Stops taking, gives back what was not started, waits for what runs, then kills it and leaves.
async fn end(shared: &Shared, lanes: &[Arc<Lane>], loops: Vec<JoinHandle<()>>, drain: Duration) {
    let until = tokio::time::Instant::now() + drain;
    tracing::info!(
        running = shared.leases.count(),
        "ending: no new steps are taken"
    );
    shared.ending.store(true, Ordering::SeqCst);
    shared.ended.notify_waiters();
    // Readers end with their last read; claimers may be running a step, which is waited for below.
    let readers = loops.into_iter().step_by(2);
    for reader in readers {
        // A reader only ends.
        let _ = tokio::time::timeout_at(until, reader).await;
    }
    for lane in lanes {
        match tokio::time::timeout(LAST_CALL, lane.release_unstarted()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "unstarted entries stay pending"),
            Err(_) => tracing::warn!("unstarted entries stay pending: Redis does not answer"),
        }
    }
    wait_for_running(shared, until).await;
    if shared.leases.count() > 0 {
        tracing::warn!(
            running = shared.leases.count(),
            "steps are still running; they are killed and taken over by others"
        );
        shared.leases.stop_all();
        wait_for_running(shared, tokio::time::Instant::now() + LAST_CALL).await;
    }
    for lane in lanes {
        if let Ok(Err(error)) = tokio::time::timeout(LAST_CALL, lane.source.leave()).await {
            tracing::warn!(%error, "could not leave the consumer group");
        }
    }
    tracing::info!("ended");
}

async fn wait_for_running(shared: &Shared, until: tokio::time::Instant) {
    while shared.leases.count() > 0 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn consumer_name(configured: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
    let host: String = host.trim().chars().filter(plain).take(64).collect();
    format!("executor-{host}-{}-{:08x}", std::process::id(), chance())
}

/// The two orders to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
