//! A Redis of its own, and what the messages on it are and become.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // a thread shows the log of a test that fails

#[path = "launch.rs"]
mod launch;
#[path = "../../../tests/ports.rs"]
mod ports;
#[path = "process.rs"]
mod process;

#[allow(unused_imports)] // each test file uses its part
pub use ports::free_port;
pub use process::{until, Worker};

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{json, Value};

pub const STREAM: &str = "{l0}:arm.executor:normal";
pub const LIVE: &str = "l0-01j00000000000000000000000.1.run.0";
pub const ID: &str = "l0-01j00000000000000000000000.1.run.0.1";
pub const TASK: &str = "l0-01j00000000000000000000000";

pub type Message = Vec<(String, String)>;

/// The server that the whole run is about; the same variable as the programs' own setting `redis.server`.
fn redis_server() -> String {
    let chosen = std::env::var("OCTOLLM_REDIS_SERVER").unwrap_or_default();
    if chosen.is_empty() {
        return "redis-server".to_owned();
    }
    chosen
}

pub struct Stage {
    folder: tempfile::TempDir,
    port: u16,
    redis: Option<Child>,
    client: RefCell<Option<redis::Connection>>,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(3, 1)
    }

    /// With leases of that many seconds.
    pub fn with(lease_s: u32, heartbeat_s: u32) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("octollm-test-")
            .tempdir()
            .unwrap();
        let mut stage = Self {
            folder,
            port: ports::free_port(),
            redis: None,
            client: RefCell::new(None),
        };
        // Other leases, else the same topology as the one that ships.
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../streams.yaml"))
            .unwrap();
        let text = text
            .replace("lease_s: 30", &format!("lease_s: {lease_s}"))
            .replace("lease_s: 60", &format!("lease_s: {lease_s}"))
            .replace("heartbeat_s: 5", &format!("heartbeat_s: {heartbeat_s}"));
        std::fs::write(stage.topology(), text).unwrap();
        std::fs::create_dir(stage.workspaces()).unwrap();
        stage.start_redis();
        stage
    }

    fn topology(&self) -> PathBuf {
        self.folder.path().join("streams.yaml")
    }

    pub fn workspaces(&self) -> PathBuf {
        self.folder.path().join("workspaces")
    }

    pub fn start_redis(&mut self) {
        let child = Command::new(redis_server())
            .args(["--port", &self.port.to_string(), "--save", "", "--dir"])
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server 7 is installed");
        self.redis = Some(child);
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        until("Redis answers", || {
            client
                .get_connection()
                .map(|connection| *self.client.borrow_mut() = Some(connection))
                .is_ok()
        });
    }

    pub fn stop_redis(&mut self) {
        let mut child = self.redis.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Send a signal to Redis: STOP lets it hang, CONT wakes it.
    pub fn signal_redis(&self, signal: &str) {
        let id = self.redis.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// One command, as a user who may do everything.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
            .query(self.client.borrow_mut().as_mut().unwrap())
            .unwrap()
    }

    /// A valid message for the executor.
    pub fn message(input: &Value, failures: u64) -> Message {
        let body = json!({
            "task": "l0-01j00000000000000000000000", "run": 1, "step": "run", "round": 0, "attempt": 1,
            "tenant": "default", "arm": "executor", "priority": "normal", "failures": failures, "input": input,
            "timeout_s": 100,
        });
        [
            ("type", "step.requested.v1"),
            ("id", ID),
            ("tenant", "default"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("body", &body.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// A message of a task whose deadline is that many ms from now; negative: it has passed.
    pub fn message_due_in(input: &Value, ms: i64) -> Message {
        let at = contracts::ids::now_ms().saturating_add_signed(ms);
        let deadline = format!(
            "\"timeout_s\":100,\"deadline_at\":\"{}\"",
            contracts::ids::timestamp(at)
        );
        let mut message = Self::message(input, 0);
        for (name, value) in &mut message {
            if name == "body" {
                *value = value.replace("\"timeout_s\":100", &deadline);
            }
        }
        message
    }

    pub fn add(&self, message: &Message) -> String {
        let mut words = vec!["XADD", STREAM, "*"];
        words.extend(
            message
                .iter()
                .flat_map(|(name, value)| [name.as_str(), value.as_str()]),
        );
        self.ask(&words)
    }

    /// The only message of its tenant that waits, as the scripts would have put it there.
    pub fn wait(&self, message: &Message) {
        const SCRIPT: &str = "redis.call('HSET', KEYS[1], 'default', '0 1', 'default.0', cmsgpack.pack({'', ARGV})) \
             return redis.call('ZADD', KEYS[2], 1, 'default')";
        let (waiting, turns) = (format!("{STREAM}:waiting"), format!("{STREAM}:ring"));
        let mut words = vec!["EVAL", SCRIPT, "2", &waiting, &turns];
        words.extend(
            message
                .iter()
                .flat_map(|(name, value)| [name.as_str(), value.as_str()]),
        );
        let _: u64 = self.ask(&words);
    }

    pub fn length(&self, stream: &str) -> usize {
        self.ask(&["XLEN", stream])
    }

    /// The entry of that number, from 0, when it is there.
    pub fn entry(&self, stream: &str, number: usize) -> HashMap<String, String> {
        self.numbered(stream, number).1
    }

    pub fn numbered(&self, stream: &str, number: usize) -> (String, HashMap<String, String>) {
        until(&format!("entry {number} of {stream}"), || {
            self.length(stream) > number
        });
        let all: Vec<(String, HashMap<String, String>)> = self.ask(&["XRANGE", stream, "-", "+"]);
        all[number].clone()
    }

    /// Entry id and body of that report, which must be as its schema says.
    pub fn done(&self, number: usize) -> (String, Value) {
        let (id, fields) = self.numbered("{l0}:steps.done", number);
        assert_eq!(
            (
                fields["type"].as_str(),
                fields["id"].as_str(),
                fields["tenant"].as_str()
            ),
            ("step.done.v1", ID, "default")
        );
        contracts::read::<contracts::events::StepDone>(fields["body"].as_bytes()).unwrap();
        (id, serde_json::from_str(&fields["body"]).unwrap())
    }

    pub fn live(&self) -> Option<String> {
        self.ask(&["HGET", "{l0}:in-flight", LIVE])
    }

    pub fn scheduled(&self, id: &str) -> Value {
        let text: String = self.ask(&["HGET", "{l0}:schedule:messages", id]);
        let score: Option<f64> = self.ask(&["ZSCORE", "{l0}:schedule", id]);
        assert!(score.is_some());
        serde_json::from_str(&text).unwrap()
    }

    /// Entries that somebody holds.
    pub fn pending(&self) -> usize {
        let groups: Vec<HashMap<String, redis::Value>> = match redis::cmd("XINFO")
            .arg("GROUPS")
            .arg(STREAM)
            .query(self.client.borrow_mut().as_mut().unwrap())
        {
            Ok(groups) => groups,
            Err(_) => return 0, // no stream yet
        };
        groups.first().map_or(0, |group| {
            redis::from_redis_value(&group["pending"]).unwrap()
        })
    }

    /// Who holds each entry that was read, and how often it was delivered; `released` holds what was given back.
    pub fn deliveries(&self) -> Vec<(String, u64)> {
        if self.pending() == 0 {
            return Vec::new();
        }
        let all: Vec<(String, String, u64, u64)> =
            self.ask(&["XPENDING", STREAM, "executor", "-", "+", "100"]);
        all.into_iter().map(|one| (one.1, one.3)).collect()
    }

    pub fn held_by_workers(&self) -> usize {
        let held = self.deliveries();
        held.iter().filter(|(who, _)| who != "released").count()
    }

    /// How often the only entry was delivered.
    pub fn delivery(&self) -> u64 {
        if self.pending() == 0 {
            return 0;
        }
        let all: Vec<(String, String, u64, u64)> =
            self.ask(&["XPENDING", STREAM, "executor", "-", "+", "1"]);
        all.first().map_or(0, |one| one.3)
    }

    /// Add a consumer to the group.
    pub fn join_group(&self, name: &str) {
        let _: usize = self.ask(&["XGROUP", "CREATECONSUMER", STREAM, "executor", name]);
    }

    /// Create the group with a consumer that reads what was written before, too.
    pub fn join_group_from_start(&self, name: &str) {
        let () = self.ask(&["XGROUP", "CREATE", STREAM, "executor", "0"]);
        self.join_group(name);
    }

    /// As if the only entry had been delivered so often to the consumer, which then was lost long ago.
    pub fn deliver_again(&self, name: &str, deliveries: u64) {
        let pending: Vec<(String, String, u64, u64)> =
            self.ask(&["XPENDING", STREAM, "executor", "-", "+", "1"]);
        let (id, count) = (&pending[0].0, deliveries.to_string());
        let words = [
            "XCLAIM",
            STREAM,
            "executor",
            name,
            "0",
            id,
            "IDLE",
            "9999999",
            "RETRYCOUNT",
            &count,
        ];
        let _: redis::Value = self.ask(&words);
    }

    /// Read all new entries as that consumer.
    pub fn read_as(&self, name: &str) {
        let words = [
            "XREADGROUP",
            "GROUP",
            "executor",
            name,
            "STREAMS",
            STREAM,
            ">",
        ];
        let _: redis::Value = self.ask(&words);
    }

    /// Whether Redis has run that command since it started.
    pub fn was_called(&self, command: &str) -> bool {
        let calls: String = self.ask(&["INFO", "commandstats"]);
        calls.contains(&format!("cmdstat_{command}:"))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The URL of a user who may run every command but these. Users of the same name replace each other.
    pub fn url_without(&self, commands: &[&str]) -> String {
        let mut words = vec![
            "ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "&*", "+@all",
        ];
        words.extend(commands);
        let () = self.ask(&words);
        format!("redis://limited:secret@127.0.0.1:{}/0", self.port)
    }

    /// Workers in the group; `released` is none, it only holds what was given back.
    pub fn consumers(&self) -> usize {
        let names = self.consumer_names();
        names.iter().filter(|name| *name != "released").count()
    }

    pub fn consumer_names(&self) -> Vec<String> {
        let all: Vec<HashMap<String, redis::Value>> =
            self.ask(&["XINFO", "CONSUMERS", STREAM, "executor"]);
        let names = all.iter().map(|one| redis::from_redis_value(&one["name"]));
        let mut names: Vec<String> = names.map(Result::unwrap).collect();
        names.sort();
        names
    }

    /// As `cancel` ends the run of every message here.
    pub fn end_run(&self, tenant: &str) {
        let run = format!("{TASK}.1 {tenant}");
        let _: usize = self.ask(&["ZADD", "{l0}:ended-runs", "4102444800", &run]);
    }

    /// As if nobody had ended any run.
    pub fn delete_ended_runs(&self) {
        let _: usize = self.ask(&["DEL", "{l0}:ended-runs"]);
    }

    /// Says so to all workers, as soon as one listens.
    pub fn say(&self, word: &str) {
        until("somebody listens", || {
            self.ask::<usize>(&["PUBLISH", "{l0}:control", word]) > 0
        });
    }

    pub fn steal(&self, entry: &str) {
        let _: redis::Value = self.ask(&["XCLAIM", STREAM, "executor", "thief", "0", entry]);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.redis.is_some() {
            self.stop_redis();
        }
    }
}
