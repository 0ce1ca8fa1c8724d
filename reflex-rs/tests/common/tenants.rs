//! One tenant with a task, and credentials of every kind.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a broken setup ends the test

use serde_json::Value;

use crate::common::api::Api;
use crate::common::events::Events;
use crate::common::keys::Key;
use crate::common::{until, Answer, Redis, Reflex};

/// A task of tenant acme, and keys of every kind.
pub struct Stage {
    pub redis: Redis,
    pub api: Api,
    pub reflex: Reflex,
    pub task: String,
    pub right: Key,
    pub reader: Key,
    pub other: Key,
    pub expired: Key,
    pub revoked: Key,
}

impl Stage {
    pub fn new() -> Self {
        let redis = Redis::start();
        let api = Api::start();
        let all = ["submit", "read", "cancel", "operate"];
        let keys = [
            Key::new("right", "acme", &all),
            Key::new("reader", "acme", &["read"]),
            Key::new("other", "other", &["admin"]),
            Key::new("expired", "acme", &all).until(1),
            Key::new("revoked", "acme", &all),
        ];
        redis.publish_keys(&keys.iter().collect::<Vec<_>>());
        let settings = [
            ("OCTOLLM_REFLEX_ANONYMOUS", "off"),
            ("OCTOLLM_API_URL", api.url.as_str()),
            ("OCTOLLM_LOG_LEVEL", "debug"),
        ];
        let reflex = Reflex::ready(&redis, &settings);
        let [right, reader, other, expired, revoked] = keys;
        let stage = Self {
            redis,
            api,
            reflex,
            task: String::new(),
            right,
            reader,
            other,
            expired,
            revoked,
        };
        until("the keys are known", || {
            (stage.submit(&stage.revoked.header()).status == 202).then_some(())
        });
        let Self {
            right,
            reader,
            other,
            expired,
            ..
        } = &stage;
        stage.redis.publish_keys(&[right, reader, other, expired]);
        until("one key is revoked", || {
            (stage.submit(&stage.revoked.header()).status == 401).then_some(())
        });
        let task = stage.submit(&right.header()).json()["task"].clone();
        let task = task.as_str().unwrap().to_owned();
        Self { task, ..stage }
    }

    pub fn submit(&self, headers: &str) -> Answer {
        self.reflex.post(br#"{"goal": "x"}"#, headers)
    }

    pub fn ask(&self, (method, path): (&str, &str), headers: &str) -> Answer {
        let path = path.replace("TASK", &self.task);
        if path.ends_with("/events") && method == "GET" {
            // An open stream has no end to read to.
            let stream = Events::open(&self.reflex, &path, headers);
            let (status, head) = (stream.status, stream.head.clone());
            if status == 200 {
                return Answer {
                    status,
                    head,
                    body: String::new(),
                };
            }
        }
        if method == "POST" && path == "/v1/tasks" {
            return self.submit(headers);
        }
        if path == "/v1/tasks:batch" {
            let headers = format!("content-type: application/json\r\n{headers}");
            let body = br#"[{"goal": "x"}]"#;
            return self.reflex.request(method, &path, &headers, body);
        }
        self.reflex.request(method, &path, headers, b"")
    }

    /// The state of a task that no orchestrator has seen.
    pub fn status_of(&self, task: &str) -> String {
        let status: String = self.redis.ask(&format!("GET|{{l0}}:status:{task}"));
        let status: Value = serde_json::from_str(&status).unwrap();
        status["state"].as_str().unwrap().to_owned()
    }
}
