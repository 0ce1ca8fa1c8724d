//! A Redis server of its own for each test, and the entries of its streams.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{free_port, until};

/// The Redis server to test with; the same variable as the setting `redis.server`.
fn redis_server() -> String {
    let chosen = std::env::var("OCTOLLM_REDIS_SERVER").unwrap_or_default();
    if chosen.is_empty() {
        return "redis-server".to_owned();
    }
    chosen
}

/// A Redis server for one test.
pub struct Redis {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_on(free_port(), &[])
    }

    pub fn start_on(port: u16, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(redis_server())
            .args(["--port", &port.to_string(), "--save", "", "--dir"])
            .arg(folder.path())
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self {
            child,
            port,
            _folder: folder,
        };
        until("Redis starts", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        redis
    }

    pub fn url(&self) -> String {
        url(self.port)
    }

    /// Another server that follows this one.
    pub fn start_replica(&self) -> Self {
        let _: () = self.ask("CONFIG|SET|repl-diskless-sync-delay|0");
        let primary = format!("127.0.0.1 {}", self.port);
        let replica = Self::start_on(free_port(), &["--replicaof", &primary]);
        until("the replica follows", || {
            let said: String = self.ask("INFO|replication");
            said.contains("state=online").then_some(())
        });
        replica
    }

    /// One command, its words separated by `|`.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &str) -> T {
        self.ask_raw(&words.split('|').map(str::as_bytes).collect::<Vec<_>>())
    }

    pub fn ask_raw<T: redis::FromRedisValue>(&self, words: &[&[u8]]) -> T {
        let mut connection = redis::Client::open(self.url())
            .unwrap()
            .get_connection()
            .unwrap();
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut connection).unwrap()
    }

    /// All entries of a stream, their fields as text.
    pub fn entries(&self, key: &str) -> Vec<Entry> {
        let raw: Vec<(String, Vec<String>)> = self.ask(&format!("XRANGE|{key}|-|+"));
        raw.into_iter().map(|(_, fields)| Entry(fields)).collect()
    }

    /// Puts an entry on the default tenant's ingest stream.
    pub fn submit(&self, fields: &[(&str, &str)]) -> String {
        let mut words = vec!["XADD", "ingest:default", "*"];
        for (name, value) in fields {
            words.extend([*name, *value]);
        }
        self.ask_raw(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
    }

    /// Sends the server a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let signal = format!("-{name}");
        assert!(Command::new("kill")
            .args([&signal, &pid])
            .status()
            .unwrap()
            .success());
    }

    pub fn length(&self, key: &str) -> usize {
        self.ask(&format!("XLEN|{key}"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

/// The fields of a stream entry.
pub struct Entry(Vec<String>);

impl Entry {
    pub fn field(&self, name: &str) -> &str {
        let pair = self.0.chunks(2).find(|pair| pair[0] == name);
        &pair.unwrap_or_else(|| panic!("no field {name} in {:?}", self.0))[1]
    }

    pub fn body(&self) -> Value {
        serde_json::from_str(self.field("body")).unwrap()
    }

    pub fn all(&self) -> String {
        self.0.join(" ")
    }
}
