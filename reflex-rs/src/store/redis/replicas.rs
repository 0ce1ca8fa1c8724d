//! Admissions that replicas of Redis must have before they are answered.
//!
//! WAIT counts only what its own connection wrote, and it blocks that connection. So a batch never uses the shared
//! connection: it has one of its own. Admissions that arrive while all of these connections wait form the next batch, so that
//! one WAIT serves many. Each number of replicas has its own queue of batches, so that none waits for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contracts::keys::LaneKeys;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{mpsc, oneshot, Semaphore};

use super::admit::parse_answer;
use crate::admission::Admitted;
use crate::store::{Replicated, StoreError};
use bus::{RedisClient, Script};
use service::Supervisor;

/// Connections of one queue, opened when they are needed.
const CONNECTIONS: usize = 4;
/// Admissions in one batch.
const MAX_BATCH: usize = 128;
/// Admissions that may wait for a batch; beyond them nothing is attempted.
const MAX_QUEUED: usize = 4096;
/// How long replicas that were too slow before have to prove that they keep up, before anything is written again.
const PROBE: Duration = Duration::from_millis(200);
/// Time to live of the barrier key. Only its replication counts, not its value.
const BARRIER_MS: u64 = 60_000;

struct Job {
    task: Arc<Admitted>,
    /// The call that stores it.
    call: Cmd,
    deadline: Instant,
    reply: oneshot::Sender<Result<Replicated, StoreError>>,
}

/// One queue for each number of replicas that was ever requested.
pub(super) struct Replicas {
    redis: RedisClient,
    supervisor: Supervisor,
    timeout: Duration,
    queues: Mutex<HashMap<usize, mpsc::Sender<Job>>>,
}

impl Replicas {
    pub fn new(redis: RedisClient, supervisor: Supervisor, timeout: Duration) -> Self {
        Self {
            redis,
            supervisor,
            timeout,
            queues: Mutex::default(),
        }
    }

    /// Stores a task by `call`, and waits until `replicas` replicas have it.
    pub async fn admit(
        &self,
        task: Arc<Admitted>,
        call: Cmd,
        replicas: usize,
    ) -> Result<Replicated, StoreError> {
        // Fails at once while Redis is unavailable.
        self.redis.connection()?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            task,
            call,
            deadline: Instant::now() + self.timeout,
            reply,
        };
        if self.queue(replicas).try_send(job).is_err() {
            return Ok(Replicated::NotAttempted);
        }
        tokio::select! {
            // The queue ends only with the process.
            answer = answer => answer.map_err(|_| StoreError::unavailable("this process is stopping"))?,
            // The batch may have been sent.
            _ = self.redis.until_unavailable() => Err(super::unanswered()),
        }
    }

    fn queue(&self, replicas: usize) -> mpsc::Sender<Job> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let known = queues.entry(replicas).or_insert_with(|| {
            let (sender, jobs) = mpsc::channel(MAX_QUEUED);
            let queue = Arc::new(Queue {
                redis: self.redis.clone(),
                supervisor: self.supervisor.clone(),
                timeout: self.timeout,
                replicas,
                idle: Mutex::default(),
                behind: AtomicBool::new(false),
            });
            self.supervisor
                .spawn_loop("replicated admissions", queue.run(jobs));
            sender
        });
        known.clone()
    }
}

/// The batches for one number of replicas.
struct Queue {
    redis: RedisClient,
    supervisor: Supervisor,
    timeout: Duration,
    replicas: usize,
    idle: Mutex<Vec<MultiplexedConnection>>,
    /// Whether the replicas did not confirm the last batch in time.
    behind: AtomicBool,
}

impl Queue {
    /// Runs as long as the process.
    async fn run(self: Arc<Self>, mut jobs: mpsc::Receiver<Job>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        while let Some(first) = jobs.recv().await {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH {
                let Ok(job) = jobs.try_recv() else { break };
                batch.push(job);
            }
            let queue = Arc::clone(&self);
            let supervisor = &self.supervisor;
            supervisor.spawn_task("replicated batch", async move {
                queue.process(batch).await;
                drop(slot);
            });
        }
    }

    async fn process(&self, batch: Vec<Job>) {
        // A job that has been queued for long would leave the others of its batch too little time.
        let (batch, overdue): (Vec<Job>, Vec<Job>) = batch
            .into_iter()
            .partition(|job| remaining(job.deadline) > self.timeout / 2);
        not_attempted(overdue);
        let Some(deadline) = batch.iter().map(|job| job.deadline).min() else {
            return;
        };
        let mut connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => return fail(batch, &error),
        };
        let mut lanes: Vec<String> = batch.iter().map(|job| job.task.lane.clone()).collect();
        lanes.sort_unstable();
        lanes.dedup();
        if self.behind.load(Ordering::Relaxed) {
            let probe = PROBE.min(remaining(deadline));
            match wait(&mut connection, &[], &lanes, self.replicas, probe).await {
                Err(error) => return fail(batch, &error),
                Ok((_, known)) if known < self.replicas => {
                    self.idle().push(connection);
                    return not_attempted(batch);
                }
                Ok(_) => {}
            }
        }
        let commands: Vec<&Cmd> = batch.iter().map(|job| &job.call).collect();
        let timeout = remaining(deadline);
        match wait(&mut connection, &commands, &lanes, self.replicas, timeout).await {
            Err(error) => fail(batch, &error),
            Ok((answers, known)) => {
                let confirmed = known >= self.replicas;
                self.behind.store(!confirmed, Ordering::Relaxed);
                if reply(batch, answers, confirmed) {
                    self.idle().push(connection);
                }
            }
        }
    }

    /// Returns an idle connection, or a new one whose server has the script.
    async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        if let Some(idle) = self.idle().pop() {
            return Ok(idle);
        }
        let mut connection = self.redis.dedicated(self.timeout).await?;
        Script::Admit.load(&mut connection).await?;
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<MultiplexedConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the commands and waits for the replicas. Returns the answers, and how many replicas have what the commands wrote.
///
/// A duplicate writes nothing that WAIT could count. So a barrier is written last in each lane: a replica that has it has
/// everything written to the lane before it.
async fn wait(
    connection: &mut MultiplexedConnection,
    commands: &[&Cmd],
    lanes: &[String],
    replicas: usize,
    timeout: Duration,
) -> Result<(Vec<Value>, usize), StoreError> {
    let mut all = Pipeline::with_capacity(commands.len() + lanes.len() + 1);
    for command in commands {
        all.add_command((*command).clone());
    }
    // WAIT takes 0 as no limit.
    let timeout_ms = u64::try_from(timeout.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    for lane in lanes {
        all.cmd("SET")
            .arg(LaneKeys::new(lane.as_str()).barrier())
            .arg("")
            .arg("PX")
            .arg(BARRIER_MS);
    }
    all.cmd("WAIT").arg(replicas).arg(timeout_ms);
    let mut answers = connection.send_packed_commands(&all, 0, all.len()).await?;
    let known = answers.pop();
    let barriers = answers.split_off(commands.len().min(answers.len()));
    let written = barriers.len() == lanes.len() && barriers.iter().all(|one| *one == Value::Okay);
    let known = match known {
        Some(Value::Int(known)) if written => usize::try_from(known).unwrap_or(0),
        // Redis is no longer the primary, or it refuses writes.
        _ => 0,
    };
    Ok((answers, known))
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

// A requester may have given up by now, which is not a failure; hence the ignored results of `send` below.

/// Sends each job its answer. Returns whether all answers are valid.
fn reply(batch: Vec<Job>, answers: Vec<Value>, confirmed: bool) -> bool {
    let mut valid = true;
    for (job, answer) in batch.into_iter().zip(answers) {
        let answer = parse_answer(answer, &job.task);
        valid &= answer.is_ok();
        let replicated = answer.map(|stored| {
            if confirmed {
                Replicated::Confirmed(stored)
            } else {
                Replicated::Unconfirmed(stored)
            }
        });
        let _ = job.reply.send(replicated);
    }
    valid
}

fn not_attempted(batch: Vec<Job>) {
    for job in batch {
        let _ = job.reply.send(Ok(Replicated::NotAttempted));
    }
}

fn fail(batch: Vec<Job>, error: &StoreError) {
    for job in batch {
        let _ = job.reply.send(Err(error.clone()));
    }
}
