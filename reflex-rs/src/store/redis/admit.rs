//! Calls of the `admit` script, which stores one or more tasks of a lane.

use std::io::{self, Write};
use std::sync::Arc;

use contracts::events::{Priority, TaskId, TaskState};
use contracts::fairness::TopicLimits;
use contracts::keys::LaneKeys;
use contracts::topology::Topology;
use redis::{Cmd, RedisWrite, Value};
use serde::Serialize;

use bus::Script;

use super::msgpack;
use crate::admission::Admitted;
use crate::store::{StoreError, Stored};

/// Size of what a call says about a task besides its body.
const ARGS_BYTES: usize = 768;
/// The arguments of a task, with its keys.
const ARGS_PER_TASK: usize = 8;

/// A task's first status: a `task.status.v1`.
#[derive(Serialize)]
struct FirstStatus<'a> {
    task: &'a str,
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    state: TaskState,
    run: u8,
    version: u8,
    stored: bool,
    created_at: &'a str,
}

/// What all calls for one lane have in common.
#[derive(Debug)]
pub(super) struct AdmitCalls {
    keys: LaneKeys,
    limits: TopicLimits,
    /// The arguments that describe the limits.
    limit_args: Vec<String>,
    /// The index in KEYS of the stream of each priority.
    streams: Vec<(Priority, usize)>,
    idempotency_ttl_s: u64,
    high_water: u64,
}

impl AdmitCalls {
    /// `None` if the topology has no topic `tasks`.
    pub fn new(topology: &Topology, lane: &str, idempotency_ttl_s: u64) -> Option<Self> {
        let topic = topology.topics.get("tasks")?;
        let keys = LaneKeys::new(lane);
        let limits = TopicLimits::new(topology, topic, &keys);
        let index_of = |priority: &Priority| {
            let stream = keys.stream(topic, Some(priority.as_str()));
            let position = limits.keys().iter().position(|key| *key == stream);
            position.map(|position| (*priority, position + 1))
        };
        Some(Self {
            streams: Priority::ALL.iter().filter_map(index_of).collect(),
            limit_args: limits.args(0),
            keys,
            limits,
            idempotency_ttl_s,
            high_water: topic.high_water,
        })
    }

    /// Builds one call that stores all of these tasks.
    pub fn call(&self, tasks: &[Arc<Admitted>]) -> Cmd {
        let limit_keys = self.limits.keys();
        let keyed = tasks.iter().filter(|task| task.has_key()).count();
        let sizes = tasks.iter().map(|task| task.body.len() + ARGS_BYTES);
        let mut call = Cmd::with_capacity(
            tasks.len() * ARGS_PER_TASK + limit_keys.len() + self.limit_args.len() + 6,
            sizes.sum::<usize>() + ARGS_BYTES,
        );
        call.arg("EVALSHA")
            .arg(Script::Admit.hash())
            .arg(limit_keys.len() + tasks.len() + keyed)
            .arg(limit_keys);
        for task in tasks {
            call.arg(self.keys.status(task.task.as_str()));
            if task.has_key() {
                let tenant = task.tenant.as_str();
                call.arg(self.keys.idempotency(tenant, &task.idempotency_key));
            }
        }
        call.arg(self.idempotency_ttl_s)
            .arg(self.high_water)
            .arg(tasks.len())
            .arg(limit_keys.len() + 1);
        for task in tasks {
            call.arg(self.stream_index(task.priority))
                .arg(task.tenant.as_str());
            write_status(task, call.writer_for_next_arg());
            write_message(task, call.writer_for_next_arg());
            if task.has_key() {
                call.arg(&task.fingerprint).arg(task.task.as_str());
            } else {
                call.arg("");
            }
        }
        call.arg(&self.limit_args);
        call
    }

    /// 0, which the script refuses, for a priority that the topology does not name.
    fn stream_index(&self, priority: Priority) -> usize {
        let known = self.streams.iter().find(|(one, _)| *one == priority);
        known.map_or(0, |(_, index)| *index)
    }
}

/// Writes the task's first status as JSON.
fn write_status(task: &Admitted, out: impl Write) {
    let status = FirstStatus {
        task: task.task.as_str(),
        tenant: task.tenant.as_str(),
        kind: task.kind.as_deref(),
        state: TaskState::Accepted,
        run: 1,
        version: 0,
        stored: false,
        created_at: &task.created_at,
    };
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, &status);
}

/// Writes the task's message as its queue holds it: no in-flight field, and a list of names and values.
fn write_message(task: &Admitted, mut out: impl Write) {
    let fields: [(&str, &[u8]); 5] = [
        ("type", task.message_type.as_bytes()),
        ("id", task.task.as_str().as_bytes()),
        ("tenant", task.tenant.as_str().as_bytes()),
        ("traceparent", task.traceparent.as_bytes()),
        ("body", &task.body),
    ];
    let mut write = || -> io::Result<()> {
        msgpack::write_list(&mut out, 2)?;
        msgpack::write_text(&mut out, b"")?;
        msgpack::write_list(&mut out, 10)?;
        for (name, value) in fields {
            msgpack::write_text(&mut out, name.as_bytes())?;
            msgpack::write_text(&mut out, value)?;
        }
        Ok(())
    };
    // Writing to memory does not fail.
    let _ = write();
}

/// Reads the answer to a call: what became of each of its tasks, in order.
pub(super) fn parse_answers(
    answer: Value,
    tasks: &[Arc<Admitted>],
) -> Result<Vec<Result<Stored, StoreError>>, StoreError> {
    if is_accepted(&answer) {
        let all = tasks.iter();
        return Ok(all
            .map(|task| Ok(Stored::Accepted(task.task.clone())))
            .collect());
    }
    match answer.into_sequence() {
        Ok(answers) if answers.len() == tasks.len() => {
            let pairs = answers.into_iter().zip(tasks);
            Ok(pairs.map(|(one, task)| parse_one(one, task)).collect())
        }
        Ok(_) => Err(unknown_answer()),
        Err(answer) => match answer.extract_error() {
            Err(error) => Err(error.into()),
            Ok(_) => Err(unknown_answer()),
        },
    }
}

/// Whether every task of the call was accepted.
fn is_accepted(answer: &Value) -> bool {
    matches!(answer, Value::BulkString(word) if word == b"accepted")
}

/// Reads what became of one task.
fn parse_one(answer: Value, task: &Admitted) -> Result<Stored, StoreError> {
    let words: Vec<String> = redis::from_owned_redis_value(answer.extract_error()?)?;
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let first = || -> Result<TaskId, StoreError> {
        word(1)
            .parse()
            .map_err(|_| StoreError::unexpected_answer("admit answered with an invalid task id"))
    };
    let state = || match word(2) {
        "" => Ok(None),
        state => TaskState::try_from(state.to_owned())
            .map(Some)
            .map_err(|_| StoreError::unexpected_answer("a status hash has an unknown state")),
    };
    match word(0) {
        "accepted" => Ok(Stored::Accepted(task.task.clone())),
        "duplicate" => Ok(Stored::Duplicate(first()?, state()?)),
        "lost" => Ok(Stored::Lost(first()?, state()?)),
        "conflict" => Ok(Stored::Conflict(first()?)),
        "busy" => Ok(Stored::Overloaded),
        _ => Err(unknown_answer()),
    }
}

/// Reads the answer to a call that stores a single task.
pub(super) fn parse_answer(answer: Value, task: &Arc<Admitted>) -> Result<Stored, StoreError> {
    let answers = parse_answers(answer, std::slice::from_ref(task))?;
    answers.into_iter().next().ok_or_else(unknown_answer)?
}

fn unknown_answer() -> StoreError {
    StoreError::unexpected_answer("admit gave an unknown answer")
}
