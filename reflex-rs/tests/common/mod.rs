//! The environment of the tests: the real program as a child process, on a real Redis, with a minimal HTTP client.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)] // a broken setup ends the test
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::disallowed_methods)] // a thread reads the log

mod answer;
pub mod api;
pub mod events;
pub mod history;
pub mod ingest;
pub mod keys;
#[path = "../../../tests/ports.rs"]
mod ports;
pub mod quotas;
mod redis_server;
pub mod tokens;

pub use answer::Answer;
pub use ports::free_port;
#[allow(unused_imports)] // each test file uses its part
pub use redis_server::{url, Entry, Redis};

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program signs with it what it sends to the API.
pub const API_SECRET: &str = "canary-secret-of-the-api-0123456789abcdef";

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
        .env("OCTOLLM_API_SECRET", API_SECRET)
        .envs(settings.iter().copied());
    command
}

/// Runs the program until it exits. If it goes on, it is killed, so that its exit has no code.
pub fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = program(settings);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + MAX_WAIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            child.kill().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
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
        let mut reflex = Self::logging_to(redis, Stdio::piped());
        let log = reflex.child.stderr.take().unwrap();
        (reflex, log)
    }

    /// One on a port of its own that is ready and logs to that file or pipe.
    pub fn logging_to(redis: &Redis, log: impl Into<Stdio>) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let child = program(&[("OCTOLLM_REFLEX_LISTEN", &address)])
            .env("OCTOLLM_REDIS_URL", redis.url())
            .stderr(log)
            .spawn()
            .unwrap();
        let (_, no_lines) = std::sync::mpsc::channel();
        let reflex = Self {
            child,
            address,
            started: Vec::new(),
            log: no_lines.into(),
        };
        until("it listens", || TcpStream::connect(&reflex.address).ok());
        reflex.until_ready();
        reflex
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

    /// Where it listens, as host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                .as_bytes(),
        )
    }

    pub fn post(&self, body: &[u8], more_headers: &str) -> Answer {
        let head = format!(
            "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{more_headers}\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Any request; `headers` are whole lines.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
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
