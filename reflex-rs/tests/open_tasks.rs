//! The quota of open tasks: counted from the submission to the end, whatever the end is.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use bus::Script;
use common::quotas::{header, refusals, File, BODY};
use common::{until, Redis, Reflex};
use serde_json::json;

const OPEN: &str = "{l0}:open-tasks";
const OWNERS: &str = "{l0}:open-tasks:owners";

/// Writes a task's status as the orchestrator does.
fn set_status(redis: &Redis, task: &str, state: &str, version: u64) {
    let fields = [
        ("task", task),
        ("tenant", "default"),
        ("state", state),
        ("run", "1"),
        ("stored", "1"),
        ("created_at", "2026-01-31T12:00:00.000Z"),
    ];
    let (key, version) = (format!("{{l0}}:status:{task}"), version.to_string());
    let count = fields.len().to_string();
    let mut words = vec![
        "EVAL",
        Script::Complete.source(),
        "2",
        "{l0}:in-flight",
        &key,
    ];
    words.extend(["test", "1", "0", "", "", "0", "", "1"]);
    words.extend(["set_status", "2", &version, "0", &count]);
    words.extend(fields.iter().flat_map(|(name, value)| [*name, *value]));
    let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
    let _: Vec<String> = redis.ask_raw(&words);
}

fn submit(reflex: &Reflex) -> Option<String> {
    let answer = reflex.post(BODY, "");
    assert!([202, 429].contains(&answer.status), "{answer:?}");
    let task = answer.json()["task"].as_str().map(str::to_owned);
    task.filter(|_| answer.status == 202)
}

fn open_tasks(redis: &Redis) -> usize {
    let (open, owners): (usize, usize) = (
        redis.ask(&format!("HLEN|{OPEN}")),
        redis.ask(&format!("ZCARD|{OWNERS}")),
    );
    assert_eq!(open, owners);
    open
}

#[test]
fn a_tenant_at_its_limit_waits_until_a_task_has_ended() {
    let redis = Redis::start();
    let file = File::new("default: {tasks: 2}");
    let reflex = file.start(&redis);
    let first = reflex.post(BODY, "idempotency-key: k\r\n");
    let task = first.json()["task"].as_str().unwrap().to_owned();
    let second = submit(&reflex).unwrap();
    let refused = reflex.post(BODY, "");
    assert_eq!(
        (refused.status, refused.problem().0),
        (429, "quota_exceeded".into())
    );
    assert_eq!(refused.json()["violated-policies"][0], "tasks");
    assert_eq!(header(&refused, "retry-after"), "2");
    assert_eq!(header(&refused, "ratelimit"), "\"tasks\";r=0;t=2");
    let policy = "\"tasks\";q=2;qu=\"concurrent-requests\"";
    assert_eq!(header(&refused, "ratelimit-policy"), policy);
    let repeat = reflex.post(BODY, "idempotency-key: k\r\n");
    assert_eq!(
        (repeat.status, &repeat.json()["duplicate"]),
        (202, &true.into())
    );
    let quota = reflex.get("/v1/quota");
    let limits = json!([{"limit": "tasks", "owner": "tenant", "most": 2, "remaining": 0}]);
    assert_eq!((quota.status, &quota.json()["limits"]), (200, &limits));
    // A task that runs is as open as one that waits.
    set_status(&redis, &task, "running", 1);
    assert_eq!(refusals(&reflex, 1), [429]);
    set_status(&redis, &task, "failed", 2);
    assert!(refusals(&reflex, 1).is_empty());
    let path = format!("/v1/tasks/{task}/runs");
    let again = reflex.request("POST", &path, "", b"");
    assert_eq!(
        (again.status, again.problem().0),
        (429, "quota_exceeded".into())
    );
    set_status(&redis, &second, "cancelled", 1);
    assert_eq!(reflex.request("POST", &path, "", b"").status, 202);
    assert_eq!(refusals(&reflex, 1), [429]);
    // A status that comes late changes nothing.
    set_status(&redis, &task, "failed", 2);
    assert_eq!(refusals(&reflex, 1), [429]);
    // Nothing was left behind by what was refused.
    assert_eq!(open_tasks(&redis), 2);
    let metric = "octollm_quota_refusals_total{limit=\"tasks\",source=\"http\"}";
    assert_eq!(reflex.metric(metric), 4);
    let _: () = redis.ask("SCRIPT|FLUSH");
    file.write("default: {reads: {per_s: 100}}");
    until("there is no limit", || submit(&reflex));
    assert_eq!(open_tasks(&redis), 2, "without a limit nothing is recorded");
}

#[test]
fn a_thousand_tasks_that_end_in_every_way_leave_nothing_open() {
    let redis = Redis::start();
    let file = File::new("default: {tasks: 40}");
    let reflex = file.start(&redis);
    let (mut open, mut lost, mut submitted, mut version) = (Vec::new(), 0, 0, 0);
    while submitted < 1000 {
        if let Some(task) = submit(&reflex) {
            submitted += 1;
            open.push(task);
            assert!(open.len() <= 40);
            continue;
        }
        assert_eq!(open.len() + lost, 40, "refused below the limit");
        for (number, task) in open.split_off(4).into_iter().enumerate() {
            version += 1;
            let states = ["succeeded", "failed", "cancelled", "expired", "rejected"];
            match number % 6 {
                5 if lost < 10 => {
                    let _: u64 = redis.ask(&format!("DEL|{{l0}}:status:{task}"));
                    lost += 1;
                }
                ending => set_status(&redis, &task, states[ending % 5], version),
            }
            let path = format!("/v1/tasks/{task}/runs");
            if number % 6 == 1 {
                assert_eq!(reflex.request("POST", &path, "", b"").status, 202);
                set_status(&redis, &task, "running", version + 1);
                version += 1;
                open.push(task);
            }
        }
    }
    for task in open {
        version += 1;
        set_status(&redis, &task, "failed", version);
    }
    assert_eq!(open_tasks(&redis), lost);
    // Only those are left whose status was lost. They are found when they are in the way, once they are old enough.
    let records: Vec<String> = redis.ask(&format!("HKEYS|{OPEN}"));
    for task in &records {
        let _: u64 = redis.ask(&format!("HSET|{OPEN}|{task}|1 tenant:default"));
    }
    while submit(&reflex).is_some() {}
    until("they are removed", || submit(&reflex));
    let left: Vec<String> = redis.ask(&format!("HKEYS|{OPEN}"));
    assert!(records.iter().all(|task| !left.contains(task)));
    assert_eq!(open_tasks(&redis), 31);
}

#[test]
fn entries_of_an_ingest_stream_wait_until_tasks_have_ended() {
    let redis = Redis::start();
    let file = File::new("default: {tasks: 2}");
    let reflex = file.start(&redis);
    for _ in 0..5 {
        redis.submit(&[("body", "{\"goal\": \"x\"}")]);
    }
    let mut ended = 0;
    until("all were stored", || {
        let open: Vec<String> = redis.ask(&format!("HKEYS|{OPEN}"));
        assert!(open.len() <= 2);
        for task in open {
            ended += 1;
            set_status(&redis, &task, "succeeded", ended);
        }
        (redis.length("ingest:default") == 0 && ended == 5).then_some(())
    });
    assert_eq!(redis.length("{l0}:tasks:normal"), 5);
    assert_eq!(redis.length("{l0}:dead"), 0);
    drop(reflex);
}
