//! The program as a worker that runs: what it answers, and its end.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Worker {
    pub child: Child,
    pub address: String,
}

impl Worker {
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    pub fn get_json(&self, path: &str) -> (u16, Value) {
        let (code, text) = self.get(path);
        (code, serde_json::from_str(&text).unwrap())
    }

    pub fn until_json(&self, path: &str, holds: impl Fn(u16, &str) -> bool) -> (u16, Value) {
        self.until_http(path, holds);
        self.get_json(path)
    }

    pub fn until_http(&self, path: &str, holds: impl Fn(u16, &str) -> bool) -> String {
        let found = RefCell::new(String::new());
        until(path, || {
            let (code, text) = self.get(path);
            *found.borrow_mut() = text;
            holds(code, &found.borrow())
        });
        found.into_inner()
    }

    pub fn until_ready(&self) {
        self.until_http("/readyz", |code, _| code == 200);
    }

    pub fn until_metrics(&self, part: &str) -> String {
        self.until_http("/metrics", |_, text| text.contains(part))
    }

    pub fn terminate(&self) {
        let done = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The exit code of one that ends by itself; one that does not is killed.
    pub fn ended(mut self) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < TIMEOUT {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < TIMEOUT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
