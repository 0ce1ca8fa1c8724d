//! The environment of the tests: a real Redis and the real program as child processes, and a minimal HTTP client.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)] // a broken setup ends the test
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::disallowed_methods)] // a thread reads the log

pub mod api;
pub mod events;
pub mod history;
#[path = "../../../tests/ports.rs"]
mod ports;

pub use ports::free_port;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far longer than anything takes; only a failing test waits this long.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// Repeats `ask` until it returns something.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + MAX_WAIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

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

/// The program with only the given settings in its environment.
pub fn program(settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octollm-reflex"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OCTOLLM_")) {
        command.env_remove(name);
    }
    command
        .env("OCTOLLM_TOPOLOGY_FILE", root().join("streams.yaml"))
        .env("OCTOLLM_REFLEX_LISTEN", "127.0.0.1:0")
        .env("OCTOLLM_LOG_FORMAT", "json")
        .envs(settings.iter().copied());
    command
}

/// Runs the program until it exits.
pub fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    program(settings).args(arguments).output().unwrap()
}

/// A running reflex.
pub struct Reflex {
    child: Child,
    address: String,
    started: Vec<String>,
    log: std::sync::Mutex<std::sync::mpsc::Receiver<String>>,
}

impl Reflex {
    pub fn start(redis: &Redis) -> Self {
        Self::start_with(&redis.url(), &[])
    }

    /// Returns once it listens.
    pub fn start_with(redis_url: &str, settings: &[(&str, &str)]) -> Self {
        let mut child = program(settings)
            .env("OCTOLLM_REDIS_URL", redis_url)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut started = Vec::new();
        let address = loop {
            let line = log
                .recv_timeout(MAX_WAIT)
                .unwrap_or_else(|_| panic!("it does not listen: {started:?}"));
            let value: Value = serde_json::from_str(&line).unwrap();
            if let Some(address) = value["address"].as_str() {
                break address.to_owned();
            }
            started.push(line);
        };
        Self {
            child,
            address,
            started,
            log: log.into(),
        }
    }

    /// One on a port of its own that is ready; nobody reads its log.
    pub fn with_unread_log(redis: &Redis) -> (Self, ChildStderr) {
        let address = format!("127.0.0.1:{}", free_port());
        let mut child = program(&[("OCTOLLM_REFLEX_LISTEN", &address)])
            .env("OCTOLLM_REDIS_URL", redis.url())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = child.stderr.take().unwrap();
        let (_, no_lines) = std::sync::mpsc::channel();
        let reflex = Self {
            child,
            address,
            started: Vec::new(),
            log: no_lines.into(),
        };
        until("it listens", || TcpStream::connect(&reflex.address).ok());
        reflex.until_ready();
        (reflex, log)
    }

    /// Returns once it is ready.
    pub fn ready(redis: &Redis, settings: &[(&str, &str)]) -> Self {
        let reflex = Self::start_with(&redis.url(), settings);
        reflex.until_ready();
        reflex
    }

    pub fn until_ready(&self) {
        until("it is ready", || {
            (self.get("/readyz").status == 200).then_some(())
        });
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }

    pub fn post(&self, body: &[u8], more_headers: &str) -> Answer {
        let head = format!(
            "POST /v1/tasks HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{more_headers}\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Any request; `headers` are whole lines.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// The value of one line of /metrics; 0 if there is none.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')
                .map(str::to_owned)
        });
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Sends raw bytes and reads the answer.
    pub fn send(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // An early answer can close the connection before everything is sent.
        let _ = stream.write_all(request);
        Answer::read(&mut stream)
    }

    /// The log lines since the last call.
    pub fn log(&mut self) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.started);
        lines.extend(self.log.get_mut().unwrap().try_iter());
        lines
    }

    /// Sends SIGTERM and returns the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.request_stop();
        self.exit_code()
    }

    pub fn request_stop(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success());
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        until("it ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Reflex {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut raw = Vec::new();
        // A reset after the answer does not change it.
        let _ = stream.read_to_end(&mut raw);
        let text = String::from_utf8(raw).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The JSON of an answer with any transfer encoding.
    pub fn json_of_chunks(&self) -> Value {
        if !self.head.contains("transfer-encoding: chunked") {
            return self.json();
        }
        let (mut text, mut rest) = (String::new(), self.body.as_str());
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            text.push_str(&after[..size]);
            rest = after[size..].trim_start_matches("\r\n");
        }
        serde_json::from_str(&text).unwrap()
    }

    /// The problem's code and field. Panics if this is not a problem document.
    pub fn problem(&self) -> (String, String) {
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["status"], self.status, "{self:?}");
        assert!(!body["detail"].as_str().unwrap().is_empty());
        let code = body["type"].as_str().unwrap().rsplit(':').next().unwrap();
        let field = body["field"].as_str().unwrap_or("");
        (code.to_owned(), field.to_owned())
    }
}

/// Writes the repository's topology with changes to a file.
pub fn topology(changes: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let mut text = std::fs::read_to_string(root().join("streams.yaml")).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("streams.yaml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}
