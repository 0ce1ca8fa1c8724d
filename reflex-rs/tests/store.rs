//! The same tests on the task store in Redis and on the one in memory.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bus::RedisClient;
use common::{root, Redis};
use contracts::events::{TaskCancel, TaskEvent, TaskId, TaskRedrive, TaskState};
use contracts::settings;
use contracts::topology::{self, Topology};
use futures_util::future::join_all;
use octollm_reflex::admission::{admit, Admitted, Rules, Stamp, Submission};
use octollm_reflex::caller::Caller;
use octollm_reflex::store::{
    Cancelled, Fault, Item, MemoryStore, RedisStore, Redriven, StoreError, Stored, TaskStore,
};
use serde_json::{json, Value};
use service::Supervisor;

const UNKNOWN: &str = "l0-01h00000000000000000000000";

/// Loaded once: a debug build takes long to compile the rules, and the connection to Redis must not wait for that.
static RULES: LazyLock<(Rules, Topology)> =
    LazyLock::new(|| (Rules::built_in().unwrap(), topology()));

/// A store, and what only its own kind allows: writing what the orchestrator writes.
enum Stage {
    Memory(MemoryStore),
    Redis(Box<RedisStore>, Redis),
}

impl Stage {
    async fn both() -> [Self; 2] {
        Self::with_high_water(0).await
    }

    async fn with_high_water(high_water: u64) -> [Self; 2] {
        let mut topology = topology();
        topology.topics.get_mut("tasks").unwrap().high_water = high_water;
        let topology = Arc::new(topology);
        let memory = MemoryStore::new(Arc::clone(&topology));
        [Self::Memory(memory), Self::redis(topology).await]
    }

    async fn redis(topology: Arc<Topology>) -> Self {
        let server = Redis::start();
        let variables = [("OCTOLLM_REDIS_URL".to_owned(), server.url())];
        let settings = settings::load_from(&variables.into()).unwrap();
        let supervisor = Supervisor::default();
        let (client, keep_connected) = RedisClient::open(&settings.redis).unwrap();
        supervisor.spawn_loop("redis connection", keep_connected);
        while client.connection().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let wait = Duration::from_secs(60);
        let store = RedisStore::new(client, topology, &supervisor, 3600, wait);
        Self::Redis(Box::new(store), server)
    }

    fn store(&self) -> &dyn TaskStore {
        match self {
            Self::Memory(store) => store,
            Self::Redis(store, _) => store.as_ref(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Redis(..) => "redis",
        }
    }

    fn set_status(&self, task: &TaskId, tenant: &str, state: &str) {
        match self {
            Self::Memory(store) => store.set_status(
                serde_json::from_value(json!({
                    "task": task.as_str(), "tenant": tenant, "state": state, "run": 1, "version": 1, "stored": true,
                    "created_at": "2026-01-31T12:00:00.000Z",
                }))
                .unwrap(),
            ),
            Self::Redis(_, server) => server.make_status(task.as_str(), tenant, state),
        }
    }

    /// Loses the stream of tasks, and with it the first status unless it is kept.
    fn lose_messages(&self, task: &TaskId, keep_status: bool) {
        match self {
            Self::Memory(store) => store.lose_messages(!keep_status),
            Self::Redis(_, server) => {
                let _: i64 = server.ask("DEL|{l0}:tasks:normal");
                if !keep_status {
                    let _: i64 = server.ask(&format!("DEL|{{l0}}:status:{task}"));
                }
            }
        }
    }

    fn publish(&self, event: &Value) {
        match self {
            Self::Memory(store) => store.publish(serde_json::from_value(event.clone()).unwrap()),
            Self::Redis(_, server) => server.publish(event),
        }
    }

    /// Makes the store unavailable for good.
    fn stop(&mut self) {
        match self {
            Self::Memory(store) => store.set_fault(Some(Fault::Unavailable)),
            Self::Redis(_, server) => server.signal("KILL"),
        }
    }
}

fn topology() -> Topology {
    let root = root();
    topology::load(&root.join("streams.yaml"), &root.join("schemas/events")).unwrap()
}

/// A task that was admitted, but not stored.
fn task(tenant: &str, key: Option<&str>, body: &'static str) -> Arc<Admitted> {
    let submission = Submission {
        source: contracts::events::Source::Http,
        body: body.into(),
        received: None,
        idempotency_key: key.map(str::to_owned),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        tenant_mismatch: false,
    };
    let caller = Caller::new(tenant.parse().unwrap());
    let stamp = Stamp::at(contracts::ids::now_ms()).unwrap();
    let (rules, topology) = &*RULES;
    Arc::new(admit(&caller, &submission, stamp, rules, None, topology).unwrap())
}

fn new_task() -> Arc<Admitted> {
    task("acme", None, r#"{"goal": "x"}"#)
}

fn event(task: &TaskId, seq: u32, name: &str) -> Value {
    common::history::event(task.as_str(), 1, seq, name)
}

fn seqs(events: &[TaskEvent]) -> Vec<i64> {
    events.iter().map(|event| event.seq.get()).collect()
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_submission_of_one_tenant() {
    for stage in Stage::both().await {
        let (store, name) = (stage.store(), stage.name());
        let first = task("acme", Some("k"), r#"{"goal": "x", "kind": "demo.x"}"#);
        let accepted = Stored::Accepted(first.task.clone());
        assert_eq!(store.admit(&first).await.unwrap(), accepted, "{name}");
        let repeat = task("acme", Some("k"), r#"{"goal": "x", "kind": "demo.x"}"#);
        let duplicate = Stored::Duplicate(first.task.clone(), Some(TaskState::Accepted));
        assert_eq!(store.admit(&repeat).await.unwrap(), duplicate, "{name}");
        let other = task("acme", Some("k"), r#"{"goal": "y"}"#);
        let conflict = Stored::Conflict(first.task.clone());
        assert_eq!(store.admit(&other).await.unwrap(), conflict, "{name}");
        let tenant = task("other", Some("k"), r#"{"goal": "y"}"#);
        let accepted = Stored::Accepted(tenant.task.clone());
        assert_eq!(store.admit(&tenant).await.unwrap(), accepted, "{name}");

        let status = store.status(&first.task).await.unwrap().unwrap();
        assert_eq!(status.tenant.as_str(), "acme", "{name}");
        assert_eq!(status.state, TaskState::Accepted, "{name}");
        assert_eq!(status.kind.unwrap().as_str(), "demo.x", "{name}");
        let persisted = store.is_persisted(&first.task).await.unwrap();
        assert_eq!(persisted, Some(false), "{name}");
        assert!(store.status(&other.task).await.unwrap().is_none(), "{name}");
    }
}

#[tokio::test]
async fn beyond_the_high_water_mark_only_duplicates_are_answered() {
    for stage in Stage::with_high_water(1).await {
        let (store, name) = (stage.store(), stage.name());
        let first = task("acme", Some("k"), r#"{"goal": "x"}"#);
        store.admit(&first).await.unwrap();
        let second = store.admit(&new_task()).await.unwrap();
        assert_eq!(second, Stored::Overloaded, "{name}");
        let repeat = task("acme", Some("k"), r#"{"goal": "x"}"#);
        let duplicate = Stored::Duplicate(first.task.clone(), Some(TaskState::Accepted));
        assert_eq!(store.admit(&repeat).await.unwrap(), duplicate, "{name}");
    }
}

#[tokio::test]
async fn tasks_that_arrive_together_are_stored_each_for_itself() {
    for stage in Stage::both().await {
        let (store, name) = (stage.store(), stage.name());
        let first = task("acme", Some("k"), r#"{"goal": "x"}"#);
        let together: Vec<_> = (0..300)
            .map(|number| match number % 3 {
                0 => new_task(),
                1 => task("acme", Some("k"), r#"{"goal": "x"}"#),
                _ => task("acme", Some("k"), r#"{"goal": "y"}"#),
            })
            .collect();
        store.admit(&first).await.unwrap();
        let answers = join_all(together.iter().map(|task| store.admit(task))).await;
        for (number, (task, answer)) in together.iter().zip(answers).enumerate() {
            let id = first.task.clone();
            let expected = match number % 3 {
                0 => Stored::Accepted(task.task.clone()),
                1 => Stored::Duplicate(id, Some(TaskState::Accepted)),
                _ => Stored::Conflict(id),
            };
            assert_eq!(answer.unwrap(), expected, "{name}: {number}");
            let status = store.status(&task.task).await.unwrap();
            assert_eq!(status.is_some(), number % 3 == 0, "{name}: {number}");
        }
    }
}

/// An idempotency key and a stream that have another type in Redis.
#[tokio::test]
async fn a_task_that_cannot_be_stored_fails_alone() {
    let stage = Stage::redis(Arc::new(topology())).await;
    let Stage::Redis(store, server) = &stage else {
        unreachable!("this stage is in Redis");
    };
    let (low, body) = (r#"{"goal": "x", "priority": "low"}"#, r#"{"goal": "x"}"#);
    let poisoned = [task("acme", Some("used"), body), task("acme", None, low)];
    let key = contracts::keys::LaneKeys::new("l0").idempotency("acme", "used");
    let _: i64 = server.ask(&format!("LPUSH|{key}|x"));
    let _: String = server.ask("SET|{l0}:tasks:low|x");
    for one in poisoned {
        let healthy: Vec<_> = (0..40).map(|_| new_task()).collect();
        let (before, after) = healthy.split_at(20);
        let all = before.iter().chain([&one]).chain(after);
        let mut answers = join_all(all.map(|task| store.admit(task))).await;
        let error = answers.remove(20).unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
        for (task, answer) in healthy.iter().zip(answers) {
            assert_eq!(answer.unwrap(), Stored::Accepted(task.task.clone()));
        }
    }
    let stored: i64 = server.ask("XLEN|{l0}:tasks:normal");
    assert_eq!(stored, 80);
}

#[tokio::test]
async fn a_task_whose_message_is_gone_is_stored_again_under_its_own_id_only() {
    for stage in Stage::both().await {
        let (store, name) = (stage.store(), stage.name());
        for with_status in [true, false] {
            let key = if with_status { "a" } else { "b" };
            let first = task("acme", Some(key), r#"{"goal": "x"}"#);
            store.admit(&first).await.unwrap();
            stage.lose_messages(&first.task, with_status);
            let repeat = task("acme", Some(key), r#"{"goal": "x"}"#);
            let state = with_status.then_some(TaskState::Accepted);
            let lost = Stored::Lost(first.task.clone(), state);
            assert_eq!(store.admit(&repeat).await.unwrap(), lost, "{name}");
            let again = Arc::new(repeat.with_task(&first.task).unwrap());
            let accepted = Stored::Accepted(first.task.clone());
            assert_eq!(store.admit(&again).await.unwrap(), accepted, "{name}");
            let duplicate = Stored::Duplicate(first.task.clone(), Some(TaskState::Accepted));
            assert_eq!(store.admit(&again).await.unwrap(), duplicate, "{name}");
            assert_eq!(store.admit(&repeat).await.unwrap(), duplicate, "{name}");
            // What Postgres has needs no message.
            stage.set_status(&first.task, "acme", "cancelled");
            stage.lose_messages(&first.task, true);
            let ended = Stored::Duplicate(first.task.clone(), Some(TaskState::Cancelled));
            assert_eq!(store.admit(&again).await.unwrap(), ended, "{name}");
        }
    }
}

#[tokio::test]
async fn an_unknown_task_has_no_status_and_no_history() {
    let task: TaskId = UNKNOWN.parse().unwrap();
    for stage in Stage::both().await {
        let (store, name) = (stage.store(), stage.name());
        assert!(store.status(&task).await.unwrap().is_none(), "{name}");
        assert_eq!(store.is_persisted(&task).await.unwrap(), None, "{name}");
        let history = store.history(&task, None).await.unwrap();
        assert!(history.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_task_is_cancelled_for_its_own_tenant_until_it_has_ended() {
    for stage in Stage::both().await {
        let (store, name) = (stage.store(), stage.name());
        let task = new_task();
        store.admit(&task).await.unwrap();
        let cancel = |tenant: &str| TaskCancel {
            task: task.task.clone(),
            tenant: tenant.parse().unwrap(),
            requested_at: contracts::ids::utc_now().try_into().unwrap(),
            detail: None,
        };
        let (own, foreign) = (cancel("acme"), cancel("other"));
        let answer = store.cancel(&foreign, 1, "").await.unwrap();
        assert_eq!(answer, Cancelled::OtherTenant, "{name}");
        for _ in 0..2 {
            let answer = store.cancel(&own, 1, "").await.unwrap();
            let accepted = Cancelled::Accepted(Some(TaskState::Accepted));
            assert_eq!(answer, accepted, "{name}");
        }
        stage.set_status(&task.task, "acme", "failed");
        let answer = store.cancel(&own, 1, "").await.unwrap();
        assert_eq!(answer, Cancelled::Ended(TaskState::Failed), "{name}");
    }
}

#[tokio::test]
async fn only_the_newest_run_is_redriven_and_only_if_it_failed() {
    for stage in Stage::both().await {
        let (store, name) = (stage.store(), stage.name());
        let task = new_task();
        store.admit(&task).await.unwrap();
        let redrive = |tenant: &str, run: i64| TaskRedrive {
            task: task.task.clone(),
            tenant: tenant.parse().unwrap(),
            run: run.try_into().unwrap(),
            requested_at: contracts::ids::utc_now().try_into().unwrap(),
        };
        let unchanged = |state| Redriven::Unchanged { state, run: 1 };
        for (state, message, answer) in [
            ("running", redrive("acme", 1), unchanged(TaskState::Running)),
            ("failed", redrive("acme", 1), Redriven::Accepted),
            ("expired", redrive("acme", 1), Redriven::Accepted),
            ("failed", redrive("acme", 2), unchanged(TaskState::Failed)),
            ("failed", redrive("other", 1), Redriven::OtherTenant),
            (
                "cancelled",
                redrive("acme", 1),
                unchanged(TaskState::Cancelled),
            ),
        ] {
            stage.set_status(&task.task, "acme", state);
            let redriven = store.redrive(&message, "").await.unwrap();
            assert_eq!(redriven, answer, "{name}: {state}");
        }
    }
}

#[tokio::test]
async fn a_watcher_receives_the_events_of_its_task_and_the_history_has_them() {
    for stage in Stage::both().await {
        let (store, name) = (stage.store(), stage.name());
        let (watched, other) = (new_task().task.clone(), new_task().task.clone());
        stage.publish(&event(&watched, 1, "accepted"));
        let mut watch = store.watch(&watched).await.unwrap();
        stage.publish(&event(&other, 1, "accepted"));
        stage.publish(&event(&watched, 2, "planned"));
        stage.publish(&event(&watched, 3, "finished"));
        for seq in [2, 3] {
            let Item::Event(received) = watch.next().await else {
                panic!("{name}: a gap instead of event {seq}");
            };
            assert_eq!((&received.task, received.seq.get()), (&watched, seq));
        }
        let all = store.history(&watched, None).await.unwrap();
        assert_eq!(seqs(&all), [1, 2, 3], "{name}");
        let after = Some("1-1".parse().unwrap());
        let rest = store.history(&watched, after).await.unwrap();
        assert_eq!(seqs(&rest), [2, 3], "{name}");
    }
}

#[tokio::test]
async fn a_store_that_is_down_says_so() {
    for mut stage in Stage::both().await {
        store_is_up(stage.store()).await;
        stage.stop();
        let (store, name) = (stage.store(), stage.name());
        let error = store.admit(&new_task()).await.unwrap_err();
        assert!(error.is_transient(), "{name}: {error}");
        // The connection is known to be lost after a moment; nothing is sent after that.
        while store.server_info().is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let error = store.admit(&new_task()).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Unavailable { .. }),
            "{name}: {error}"
        );
        assert!(store.ping().await.is_err(), "{name}");
    }
}

async fn store_is_up(store: &dyn TaskStore) {
    store.ping().await.unwrap();
    store.server_info().unwrap();
}
