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

    /// Sets fields of a task's status.
    pub fn set_status(&self, task: &str, fields: &str) {
        let _: i64 = self.ask(&format!("HSET|{{l0}}:status:{task}|{fields}"));
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
