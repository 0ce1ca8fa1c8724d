//! Admissions that replicas of Redis must have before they are answered.
//!
//! WAIT counts only what its own connection wrote, and that connection stands still meanwhile. So nothing here goes over the
//! shared one: a batch has a connection to itself, and what comes while all of them wait goes together in the next batch,
//! so that one WAIT serves many. Who needs another number of replicas has other batches, and waits for nobody else's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contracts::keys::LaneKeys;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{mpsc, oneshot, Semaphore};

use super::{stored, Stored};
use bus::{RedisClient, Script, StoreError};
use service::Supervisor;

/// Connections for each number of replicas, made when they are needed.
const CONNECTIONS: usize = 4;
/// Admissions in one batch.
const MOST: usize = 128;
/// How long replicas that were too slow before have to show that they keep up, before anything is written again.
const PROBE: Duration = Duration::from_millis(200);
/// Of the barrier: only its way to the replicas counts, not what it holds.
const BARRIER_MS: u64 = 60_000;

/// What became of an admission.
#[derive(Debug)]
pub enum Replicated {
    /// Enough replicas have it.
    Kept(Stored),
    /// Redis has it; whether enough replicas do is not known.
    Unconfirmed(Stored),
    /// Nothing was written, since too few replicas keep up.
    Left,
}

struct Job {
    command: Cmd,
    lane: String,
    deadline: Instant,
    reply: oneshot::Sender<Result<Replicated, StoreError>>,
}

/// One queue for each number of replicas that was ever asked for.
pub(super) struct Replicas {
    link: RedisClient,
    supervisor: Supervisor,
    patience: Duration,
    queues: Mutex<HashMap<usize, mpsc::UnboundedSender<Job>>>,
}

impl Replicas {
    pub fn new(link: RedisClient, supervisor: Supervisor, patience: Duration) -> Self {
        Self {
            link,
            supervisor,
            patience,
            queues: Mutex::default(),
        }
    }

    /// Runs `command`, a call of `admit`, and waits until so many replicas have what it wrote.
    pub async fn admit(
        &self,
        command: Cmd,
        lane: &str,
        replicas: usize,
    ) -> Result<Replicated, StoreError> {
        // At once, where Redis is known to be away.
        self.link.connection()?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            command,
            lane: lane.to_owned(),
            deadline: Instant::now() + self.patience,
            reply,
        };
        // Neither ends before the process does.
        let gone = || StoreError::unavailable("this process ends");
        self.queue(replicas).send(job).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn queue(&self, replicas: usize) -> mpsc::UnboundedSender<Job> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let known = queues.entry(replicas).or_insert_with(|| {
            let (sender, jobs) = mpsc::unbounded_channel();
            let queue = Arc::new(Queue {
                link: self.link.clone(),
                supervisor: self.supervisor.clone(),
                patience: self.patience,
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
    link: RedisClient,
    supervisor: Supervisor,
    patience: Duration,
    replicas: usize,
    idle: Mutex<Vec<MultiplexedConnection>>,
    /// Whether the last batch waited in vain.
    behind: AtomicBool,
}

impl Queue {
    /// Runs as long as the process.
    async fn run(self: Arc<Self>, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        while let Some(first) = jobs.recv().await {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let mut batch = vec![first];
            while batch.len() < MOST {
                let Ok(job) = jobs.try_recv() else { break };
                batch.push(job);
            }
            let queue = Arc::clone(&self);
            let supervisor = &self.supervisor;
            supervisor.spawn_task("replicated batch", async move {
                queue.work(batch).await;
                drop(slot);
            });
        }
    }

    async fn work(&self, batch: Vec<Job>) {
        // Whoever has waited long for its turn would leave the others of the batch too little time.
        let (batch, overdue): (Vec<Job>, Vec<Job>) = batch
            .into_iter()
            .partition(|job| left(job.deadline) > self.patience / 2);
        leave(overdue);
        let Some(deadline) = batch.iter().map(|job| job.deadline).min() else {
            return;
        };
        let mut connection = match self.connection().await {
            Ok(connection) => connection,
            Err(trouble) => return fail(batch, &trouble),
        };
        let lane = batch[0].lane.clone();
        if self.behind.load(Ordering::Relaxed) {
            let probe = PROBE.min(left(deadline));
            match wait(&mut connection, &[], &lane, self.replicas, probe).await {
                Err(trouble) => return fail(batch, &trouble),
                Ok((_, known)) if known < self.replicas => {
                    self.idle().push(connection);
                    return leave(batch);
                }
                Ok(_) => {}
            }
        }
        let commands: Vec<&Cmd> = batch.iter().map(|job| &job.command).collect();
        let longest = left(deadline);
        match wait(&mut connection, &commands, &lane, self.replicas, longest).await {
            Err(trouble) => fail(batch, &trouble),
            Ok((answers, known)) => {
                let kept = known >= self.replicas;
                self.behind.store(!kept, Ordering::Relaxed);
                if tell(batch, answers, kept) {
                    self.idle().push(connection);
                }
            }
        }
    }

    /// One that waits for nobody, with the script on its server.
    async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        if let Some(idle) = self.idle().pop() {
            return Ok(idle);
        }
        let mut made = self.link.dedicated(self.patience).await?;
        Script::Admit.load(&mut made).await?;
        Ok(made)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<MultiplexedConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the commands and waits; their answers, and how many replicas have what they wrote. A repeat writes nothing, so the
/// barrier stands behind it: whoever has that has what was written before.
async fn wait(
    connection: &mut MultiplexedConnection,
    commands: &[&Cmd],
    lane: &str,
    replicas: usize,
    longest: Duration,
) -> Result<(Vec<Value>, usize), StoreError> {
    let mut all = Pipeline::with_capacity(commands.len() + 2);
    for command in commands {
        all.add_command((*command).clone());
    }
    // 0 would be for ever.
    let longest_ms = u64::try_from(longest.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    all.cmd("SET")
        .arg(LaneKeys::new(lane).barrier())
        .arg("")
        .arg("PX")
        .arg(BARRIER_MS)
        .cmd("WAIT")
        .arg(replicas)
        .arg(longest_ms);
    let mut answers = connection.send_packed_commands(&all, 0, all.len()).await?;
    let known = match (answers.pop(), answers.pop()) {
        (Some(Value::Int(known)), Some(Value::Okay)) => usize::try_from(known).unwrap_or(0),
        // Redis is no longer the one that replicas follow, or it takes no writes.
        _ => 0,
    };
    Ok((answers, known))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

// Whoever asked may be gone by now, which is no failure; hence the ignored answers below.

/// Hands on what Redis answered; whether all went well.
fn tell(batch: Vec<Job>, answers: Vec<Value>, kept: bool) -> bool {
    let mut sound = true;
    for (job, answer) in batch.into_iter().zip(answers) {
        let answer = stored(answer);
        sound &= answer.is_ok();
        let told = answer.map(|stored| {
            if kept {
                Replicated::Kept(stored)
            } else {
                Replicated::Unconfirmed(stored)
            }
        });
        let _ = job.reply.send(told);
    }
    sound
}

fn leave(batch: Vec<Job>) {
    for job in batch {
        let _ = job.reply.send(Ok(Replicated::Left));
    }
}

fn fail(batch: Vec<Job>, trouble: &StoreError) {
    for job in batch {
        let _ = job.reply.send(Err(trouble.clone()));
    }
}
