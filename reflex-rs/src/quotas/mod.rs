//! Quotas: how much a tenant and a key may send. `docs/quotas.md` describes them, decision 026 gives the reasons.
//!
//! A request's way: `owners` finds the buckets of its caller → `bucket` spends tokens that are here, without Redis → `refill` asks
//! Redis for more, in the background or while the request waits. `open_tasks` counts tasks until they end. `generation` is what the file
//! says, and `reload` reads it again when it changes.

mod bucket;
mod fields;
mod generation;
mod limit;
mod open_tasks;
mod owners;
mod refill;
mod reload;
mod report;
mod spending;

pub use limit::{Exceeded, Fields, Limit, OwnerKind};
pub use open_tasks::TaskLimits;
pub use report::LimitReport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bus::{RedisClient, StoreError};
use contracts::events::{Source, TaskId};
use contracts::quotas;
use contracts::topology::Topology;
use service::Supervisor;

use self::bucket::{Bucket, Spent};
use self::generation::Generation;
use self::open_tasks::{OpenTasks, Opened, TaskLimit};
use self::owners::Owner;
use self::refill::{Refill, Refiller};
use self::spending::{Spending, TakeError};
use crate::caller::Caller;
use crate::metrics::{label, Metrics};

/// How long a submission waits for Redis. Without Redis it would fail anyway.
const SUBMISSION_WAIT: Duration = Duration::from_millis(900);
/// How long a read waits for Redis before it is let through.
const READ_WAIT: Duration = Duration::from_millis(50);
/// Answers of Redis that one request waits for. More are needed only if others were faster each time.
const MAX_ANSWERS: usize = 8;

/// Why a submission is not let through.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    #[error(transparent)]
    Exceeded(#[from] Box<Exceeded>),
    /// Redis cannot say whether the quota allows it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The time since the process began. No decision depends on the time of day.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    /// In us.
    fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// The quotas of all tenants and keys.
pub struct Quotas {
    current: ArcSwap<Generation>,
    lane: String,
    clock: Clock,
    refill: Refill,
    /// `None` without a file.
    open_tasks: Option<OpenTasks>,
    metrics: Arc<Metrics>,
}

/// The file of quotas and what it depends on.
pub struct QuotasFile {
    /// `None`: there are no quotas.
    pub path: Option<PathBuf>,
    /// The largest body in bytes that is accepted.
    pub body_limit: usize,
}

impl Quotas {
    /// Starts the loops that ask Redis for tokens and that watch the file. The buckets are in the first lane.
    #[must_use]
    pub fn start(
        file: QuotasFile,
        initial: quotas::Quotas,
        topology: &Arc<Topology>,
        redis: RedisClient,
        metrics: Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let lane = topology.lanes.first().map_or("l0", String::as_str);
        let (refill, queue) = Refill::new();
        let open_tasks = file.path.is_some().then(|| OpenTasks {
            redis: redis.clone(),
            topology: Arc::clone(topology),
            supervisor: supervisor.clone(),
            pruned: Arc::default(),
        });
        let quotas = Arc::new(Self {
            current: ArcSwap::from_pointee(Generation::new(initial, lane)),
            lane: lane.to_owned(),
            clock: Clock(Instant::now()),
            refill,
            open_tasks,
            metrics: Arc::clone(&metrics),
        });
        let Some(path) = file.path else {
            return quotas;
        };
        let refiller = Refiller {
            redis,
            clock: quotas.clock,
            metrics,
            queue,
        };
        supervisor.spawn_loop("quota refills", refiller.run());
        let watch = reload::watch(Arc::clone(&quotas), path, file.body_limit);
        supervisor.spawn_loop("quotas file", watch);
        quotas
    }

    /// No quotas at all.
    #[must_use]
    pub fn none(metrics: Arc<Metrics>) -> Self {
        Self {
            current: ArcSwap::from_pointee(Generation::new(quotas::Quotas::default(), "l0")),
            lane: "l0".to_owned(),
            clock: Clock(Instant::now()),
            refill: Refill::new().0,
            open_tasks: None,
            metrics,
        }
    }

    /// Counts a submission of this many bytes. Waits for Redis if this process has no tokens left.
    pub async fn submission(
        &self,
        caller: &Caller,
        bytes: usize,
        source: Source,
    ) -> Result<(), QuotaError> {
        let owners = self.owners(caller);
        let mut spent = Spending::default();
        for owner in owners.iter().flatten() {
            let costs = [(&owner.requests, 1), (&owner.bytes, bytes as u64)];
            for (bucket, cost) in costs {
                let Some(bucket) = bucket else { continue };
                if cost == 0 {
                    continue;
                }
                if let Err(error) = self.take_in_time(bucket, cost).await {
                    spent.refund();
                    // An entry of an ingest stream waits and is not refused.
                    let refused = (source != Source::Stream).then(|| label(source));
                    return Err(self.refused(&owners, bucket, error, refused));
                }
                spent.push(bucket, cost);
            }
        }
        Ok(())
    }

    /// Counts a request that is not a submission. While Redis does not answer, it is let through: it costs little, and a caller
    /// must be able to see what became of its tasks.
    pub async fn read(&self, caller: &Caller) -> Result<(), Box<Exceeded>> {
        let owners = self.owners(caller);
        for owner in owners.iter().flatten() {
            let Some(bucket) = &owner.reads else { continue };
            let taken = tokio::time::timeout(READ_WAIT, self.take(bucket, 1)).await;
            if let Ok(Err(error @ TakeError::Exceeded(_))) = taken {
                if let QuotaError::Exceeded(exceeded) =
                    self.refused(&owners, bucket, error, Some("read"))
                {
                    return Err(exceeded);
                }
            }
        }
        Ok(())
    }

    /// Returns what the caller may still do; empty if nothing limits it.
    pub async fn report(&self, caller: &Caller) -> Result<Vec<LimitReport>, StoreError> {
        let Some(open_tasks) = &self.open_tasks else {
            return Ok(Vec::new());
        };
        let owners = self.owners(caller);
        let buckets = owners.iter().flatten().flat_map(|owner| owner.buckets());
        let buckets: Vec<_> = buckets.cloned().collect();
        let now = self.clock.now();
        let mut reports = report::buckets(&open_tasks.redis, &buckets, now).await?;
        for limit in self.task_limits(caller).0 {
            let open = open_tasks.count(&limit.name).await?;
            reports.push(LimitReport {
                limit: Limit::Tasks,
                owner: limit.owner,
                per_s: None,
                most: limit.most,
                remaining: limit.most.saturating_sub(open),
            });
        }
        Ok(reports)
    }

    /// Returns how many open tasks the caller may have.
    #[must_use]
    pub fn task_limits(&self, caller: &Caller) -> TaskLimits {
        let current = self.current.load();
        let limits = current.limits(caller);
        let of = |kind: OwnerKind, name: &str, most: Option<u64>| {
            most.map(|most| TaskLimit {
                owner: kind,
                name: owner_id(kind, name),
                most,
            })
        };
        let [tenant, key] = limits;
        let tenant =
            tenant.and_then(|limits| of(OwnerKind::Tenant, caller.tenant.as_str(), limits.tasks));
        let key = key.and_then(|limits| {
            of(
                OwnerKind::Key,
                caller.credential.name().unwrap_or(""),
                limits.tasks,
            )
        });
        TaskLimits(tenant.into_iter().chain(key).collect())
    }

    /// Counts a task as open until it ends. Returns whether it was not counted before. `idempotency_key`: tenant and key.
    pub async fn open_task(
        &self,
        task: &TaskId,
        idempotency_key: Option<(&str, &str)>,
        limits: &TaskLimits,
        source: Option<Source>,
    ) -> Result<bool, QuotaError> {
        let Some(open_tasks) = self.open_tasks.as_ref().filter(|_| !limits.is_empty()) else {
            return Ok(false);
        };
        let opened = open_tasks.open(task, idempotency_key, limits);
        let opened = tokio::time::timeout(SUBMISSION_WAIT, opened).await;
        let opened = opened.unwrap_or_else(|_| Err(not_said()));
        match opened {
            Ok(Opened::Now) => Ok(true),
            Ok(Opened::Before) => Ok(false),
            Ok(Opened::No(limit)) => {
                if source != Some(Source::Stream) {
                    let source = source.map_or("redrive", label);
                    self.metrics.quota_refused(Limit::Tasks, source);
                }
                Err(Box::new(open_tasks::exceeded(limits, &limit)).into())
            }
            // Whether or not it was recorded, nothing was stored.
            Err(StoreError::Unknown(_)) => Err(not_said().into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the record of a task that was not stored after all.
    pub async fn close_task(&self, task: &TaskId, limits: &TaskLimits) {
        if let Some(open_tasks) = self.open_tasks.as_ref().filter(|_| !limits.is_empty()) {
            open_tasks.close(task).await;
        }
    }

    /// The fields for the answer to a submission; `None` if the caller has no quota for them.
    #[must_use]
    pub fn submission_fields(&self, caller: &Caller) -> Option<Fields> {
        let owners = self.owners(caller);
        self.fields(
            &owners,
            |owner| &owner.submission_policy,
            |limit| limit != Limit::Reads,
        )
    }

    /// The fields for the answer to any other request.
    #[must_use]
    pub fn read_fields(&self, caller: &Caller) -> Option<Fields> {
        let owners = self.owners(caller);
        self.fields(
            &owners,
            |owner| &owner.read_policy,
            |limit| limit == Limit::Reads,
        )
    }

    /// Replaces the quotas. What is left in Redis stays; portions that are here are lost.
    fn replace(&self, file: quotas::Quotas) {
        self.current
            .store(Arc::new(Generation::new(file, &self.lane)));
    }

    /// Removes idle owners and gives back what they did not spend.
    fn prune(&self) {
        let (current, now) = (self.current.load(), self.clock.now());
        for owners in [&current.tenants, &current.keys] {
            owners.prune(now, |bucket| self.refill.request(bucket));
        }
    }

    fn owners(&self, caller: &Caller) -> [Option<Arc<Owner>>; 2] {
        self.current.load().owners(caller, self.clock.now())
    }

    async fn take_in_time(&self, bucket: &Arc<Bucket>, cost: u64) -> Result<(), TakeError> {
        let taken = tokio::time::timeout(SUBMISSION_WAIT, self.take(bucket, cost)).await;
        taken.unwrap_or_else(|_| Err(TakeError::Store(not_said())))
    }

    async fn take(&self, bucket: &Arc<Bucket>, cost: u64) -> Result<(), TakeError> {
        for _ in 0..MAX_ANSWERS {
            let mut answered = std::pin::pin!(bucket.answered.notified());
            match bucket.spend(cost, self.clock.now()) {
                Spent::Yes { refill } => {
                    if refill {
                        self.refill.request(bucket);
                    }
                    return Ok(());
                }
                Spent::No { wait } => return Err(TakeError::Exceeded(wait)),
                Spent::Ask => {}
            }
            // Before Redis is asked, so that its answer is not missed.
            answered.as_mut().enable();
            bucket.wait_for(cost);
            self.refill.request(bucket);
            answered.await;
            if let Some(error) = bucket.failure() {
                return Err(TakeError::Store(error));
            }
        }
        Err(TakeError::Exceeded(Duration::from_secs(1)))
    }

    fn refused(
        &self,
        owners: &[Option<Arc<Owner>>; 2],
        bucket: &Bucket,
        error: TakeError,
        source: Option<&'static str>,
    ) -> QuotaError {
        let wait = match error {
            TakeError::Exceeded(wait) => wait,
            TakeError::Store(error) => return error.into(),
        };
        if let Some(source) = source {
            self.metrics.quota_refused(bucket.limit, source);
        }
        let policy = |owner: &Arc<Owner>| match bucket.limit {
            Limit::Reads => owner.read_policy.clone(),
            Limit::Requests | Limit::Bytes | Limit::Tasks => owner.submission_policy.clone(),
        };
        let left = bucket.remaining(self.clock.now());
        Box::new(Exceeded {
            limit: bucket.limit,
            owner: bucket.owner,
            retry_after: wait,
            fields: Fields {
                policy: fields::join(owners.iter().flatten().map(policy)),
                state: fields::exceeded(bucket.owner, bucket.limit, left, wait),
            },
        })
        .into()
    }

    fn fields(
        &self,
        owners: &[Option<Arc<Owner>>; 2],
        policy: impl Fn(&Owner) -> &String,
        counts: impl Fn(Limit) -> bool,
    ) -> Option<Fields> {
        let policies = owners.iter().flatten().map(|owner| policy(owner).clone());
        let policy = fields::join(policies.filter(|policy| !policy.is_empty()));
        if policy.is_empty() {
            return None;
        }
        let buckets = owners.iter().flatten().flat_map(|owner| owner.buckets());
        let buckets = buckets.filter(|bucket| counts(bucket.limit));
        let state = fields::state(buckets, self.clock.now());
        Some(Fields { policy, state })
    }
}

/// Redis did not answer, and nothing was stored.
fn not_said() -> StoreError {
    StoreError::unavailable("it did not say in time how much of a quota is left")
}

fn owner_id(kind: OwnerKind, name: &str) -> String {
    format!("{}:{name}", kind.as_str())
}
