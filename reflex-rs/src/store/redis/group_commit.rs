//! Group commit: tasks that arrive while a call of the `admit` script is on its way are stored together by the next call.
//!
//! A task that arrives while no call is on its way is sent at once, so an idle system adds no delay. The busier it is, the
//! more tasks share a call. Each lane has its own queue, because a script may touch the keys of one lane only.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use service::Supervisor;
use tokio::sync::{mpsc, oneshot};

use super::admit::{parse_answer, parse_answers, AdmitCalls};
use crate::admission::Admitted;
use crate::store::{StoreError, Stored};
use bus::{RedisClient, Script};

/// Calls of one lane that are on their way at once: one is executed while the next one is prepared.
const MAX_CALLS: usize = 2;
/// Tasks in one call.
const MAX_TASKS: usize = 128;
/// Bytes of all bodies in one call, unless it has a single task. Redis does nothing else while it executes a call.
const MAX_BYTES: usize = 512 * 1024;
/// Tasks that may wait for a call; more wait in their own requests.
const MAX_QUEUED: usize = 4096;

/// A task that is to be stored.
struct Job {
    task: Arc<Admitted>,
    /// Closed once nobody waits for the answer.
    reply: oneshot::Sender<Result<Stored, StoreError>>,
}

/// The queues of all lanes.
pub(super) struct GroupCommit {
    redis: RedisClient,
    queues: HashMap<String, mpsc::Sender<Job>>,
}

impl GroupCommit {
    /// Starts one loop for each lane.
    pub fn start(
        redis: &RedisClient,
        calls: &HashMap<String, Arc<AdmitCalls>>,
        supervisor: &Supervisor,
    ) -> Self {
        let start = |(lane, calls): (&String, &Arc<AdmitCalls>)| {
            let (sender, jobs) = mpsc::channel(MAX_QUEUED);
            let queue = Queue {
                redis: redis.clone(),
                calls: Arc::clone(calls),
            };
            supervisor.spawn_loop("admissions", queue.run(jobs));
            (lane.clone(), sender)
        };
        Self {
            redis: redis.clone(),
            queues: calls.iter().map(start).collect(),
        }
    }

    /// Stores a task. If this is dropped before its call is sent, nothing is stored.
    pub async fn admit(&self, task: Arc<Admitted>) -> Result<Stored, StoreError> {
        // Fails at once while Redis is unavailable.
        self.redis.connection()?;
        let queue = self.queues.get(&task.lane);
        let queue = queue.ok_or_else(unknown_lane)?;
        let (reply, answer) = oneshot::channel();
        // Both fail only when the process stops.
        let stopping = || StoreError::unavailable("this process is stopping");
        let sent = queue.send(Job { task, reply }).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// The error of a task whose lane has no topic `tasks`.
pub(super) fn unknown_lane() -> StoreError {
    StoreError::unexpected_answer("the topology has no topic tasks in the lane of this task")
}

/// The queue of one lane.
struct Queue {
    redis: RedisClient,
    calls: Arc<AdmitCalls>,
}

impl Queue {
    /// Runs as long as the process.
    async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut running = FuturesUnordered::new();
        let mut waiting = Vec::new();
        loop {
            if !waiting.is_empty() && running.len() < MAX_CALLS {
                let batch = next_batch(&mut waiting);
                running.push(self.commit(batch));
                continue;
            }
            let free = waiting.is_empty() && running.len() < MAX_CALLS;
            tokio::select! {
                Some(()) = running.next(), if !running.is_empty() => {}
                received = jobs.recv_many(&mut waiting, MAX_TASKS), if free => {
                    if received == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Stores the tasks of a batch and answers each job.
    async fn commit(&self, mut batch: Vec<Job>) {
        batch.retain(|job| !job.reply.is_closed());
        let tasks: Vec<_> = batch.iter().map(|job| Arc::clone(&job.task)).collect();
        if tasks.is_empty() {
            return;
        }
        match self.store(&tasks).await {
            Ok(answers) => {
                for (job, answer) in batch.into_iter().zip(answers) {
                    // Fails if nobody waits for the answer any longer.
                    let _ = job.reply.send(answer);
                }
            }
            // Redis refuses the call as a whole, and one task may be the reason.
            Err(StoreError::Refused(_)) if tasks.len() > 1 => {
                for job in batch {
                    let answer = self.store_one(&job.task).await;
                    let _ = job.reply.send(answer);
                }
            }
            Err(error) => {
                for job in batch {
                    let _ = job.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Runs one call of the script.
    async fn store(
        &self,
        tasks: &[Arc<Admitted>],
    ) -> Result<Vec<Result<Stored, StoreError>>, StoreError> {
        let call = self.calls.call(tasks);
        let answer = self.redis.call_command(Script::Admit, &call).await?;
        parse_answers(answer, tasks)
    }

    async fn store_one(&self, task: &Arc<Admitted>) -> Result<Stored, StoreError> {
        let call = self.calls.call(std::slice::from_ref(task));
        let answer = self.redis.call_command(Script::Admit, &call).await?;
        parse_answer(answer, task)
    }
}

/// Takes the jobs for one call from the front.
fn next_batch(waiting: &mut Vec<Job>) -> Vec<Job> {
    let mut bytes = 0;
    let fits = |job: &Job| {
        bytes += job.task.body.len();
        bytes <= MAX_BYTES
    };
    let count = waiting.iter().map(fits).take_while(|fits| *fits).count();
    let rest = waiting.split_off(count.max(1));
    std::mem::replace(waiting, rest)
}
