//! Tasks and events as the orchestrator writes them.

use serde_json::{json, Value};

use super::{Redis, Reflex};

/// Submits a task to a running reflex; returns its id.
pub fn accepted(reflex: &Reflex) -> String {
    let answer = reflex.post(br#"{"goal": "x"}"#, "");
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["task"].as_str().unwrap().to_owned()
}

/// A `task.event.v1`; the last one of a run is `finished`.
pub fn event(task: &str, run: u32, seq: u32, name: &str) -> Value {
    let mut event = json!({
        "task": task, "run": run, "seq": seq, "tenant": "default", "at": "2026-01-31T12:00:00.000Z", "event": name,
    });
    if name == "finished" {
        event["state"] = "succeeded".into();
    }
    event
}

impl Redis {
    /// Publishes an event on the event stream.
    pub fn publish(&self, event: &Value) {
        let (task, body) = (event["task"].as_str().unwrap(), event.to_string());
        let words = [
            "XADD",
            "{l0}:events",
            "*",
            "type",
            "task.event.v1",
            "id",
            task,
            "tenant",
            "default",
            "traceparent",
            "",
            "body",
            &body,
        ];
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let _: String = self.ask_raw(&words);
    }

    /// Sets fields of a task's status. The one of its admission becomes a hash, as the orchestrator's statuses are.
    pub fn set_status(&self, task: &str, fields: &str) {
        const SCRIPT: &str = "if redis.call('TYPE', KEYS[1]).ok == 'string' then \
            local status = cjson.decode(redis.call('GET', KEYS[1])) redis.call('DEL', KEYS[1]) \
            for name, value in pairs(status) do redis.call('HSET', KEYS[1], name, value == false and '0' or tostring(value)) end \
            end return redis.call('HSET', KEYS[1], unpack(ARGV))";
        let key = format!("{{l0}}:status:{task}");
        let words = ["EVAL", SCRIPT, "1", &key].into_iter();
        let words: Vec<&[u8]> = words.chain(fields.split('|')).map(str::as_bytes).collect();
        let _: i64 = self.ask_raw(&words);
    }

    /// Writes a complete status, as another process would.
    pub fn make_status(&self, task: &str, tenant: &str, state: &str) {
        let at = "2026-01-31T12:00:00.000Z";
        self.set_status(
            task,
            &format!("task|{task}|tenant|{tenant}|state|{state}|run|1|version|1|stored|1|created_at|{at}"),
        );
    }
}
